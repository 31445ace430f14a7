//! A history's log, for people.

use crate::history::Sim;
use crate::store::{Change, Object};

impl Sim {
    pub fn log(&mut self, line: impl FnOnce() -> String) {
        if self.logging {
            let line = format!("{:>9.3} {}", self.now as f64 / 1000.0, line());
            self.lines.push(line);
        }
    }

    pub fn log_change(&mut self, change: &Change) {
        if !self.logging {
            return;
        }
        let line = match (&change.old, &change.new) {
            (_, Some(Object::Lrp(lrp))) => format!("{} {}", lrp.key, brief(&lrp.record.status)),
            (_, Some(Object::Task(task))) => {
                let status = &task.record.status;
                format!(
                    "{} {:?} on {:?} as {:?}",
                    task.key, status.state, status.cell_name, status.instance_guid
                )
            }
            (_, Some(Object::Cell(name, cell))) => {
                let status = &cell.status;
                format!(
                    "cell {name} {:?} epoch {:?} since {:?}",
                    status.state, status.epoch, status.incarnation_epoch
                )
            }
            (_, Some(Object::Desired(key, desired))) => format!("{key} x {}", desired.instances),
            (Some(Object::Lrp(lrp)), None) => format!("{} deleted", lrp.key),
            (Some(Object::Task(task)), None) => format!("{} deleted", task.key),
            (_, None) => "deleted".into(),
        };
        let writer = change.writer;
        self.log(|| format!("  {writer:?}: {line}"));
    }
}

pub fn brief(status: &diego_operator::api::ActualLRPStatus) -> String {
    let at = |cell: Option<&String>, epoch: Option<i64>, guid: Option<&String>| match (cell, guid) {
        (Some(cell), Some(guid)) => format!(" {guid}@{cell}/{}", epoch.unwrap_or(-1)),
        (_, _) => String::new(),
    };
    let mut text = format!("{:?}", status.state);
    text += &at(
        status.cell_name.as_ref(),
        status.cell_epoch,
        status.instance_guid.as_ref(),
    );
    if let Some(one) = &status.suspect {
        text += " suspect";
        text += &at(
            Some(&one.cell_name),
            Some(one.cell_epoch),
            Some(&one.instance_guid),
        );
    }
    if let Some(one) = &status.evacuating {
        text += " evacuating";
        text += &at(
            Some(&one.cell_name),
            Some(one.cell_epoch),
            Some(&one.instance_guid),
        );
    }
    if let Some(reason) = &status.start_reason {
        text += &format!(" ({reason})");
    }
    text
}
