//! `recoveries`: the last loss of each Cell, with its figures.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::cell_row;
use super::cluster::Cluster;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Row, Screen, say};
use super::text::{age, span};
use crate::api::{Cell, LastRecovery};

/// The last loss of a Cell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// The Cell.
    cell: String,
    /// Its zone.
    zone: String,
    /// How the Cell is now, in one word.
    state: String,
    /// How often in a row it was lost and came back.
    flaps: i32,
    /// Its figures.
    #[serde(flatten)]
    recovery: LastRecovery,
}

impl Loss {
    /// The Cell's, if it was ever lost.
    pub fn of(cell: &Cell) -> Option<Loss> {
        let status = cell.status.as_ref()?;
        Some(Loss {
            cell: cell.name_any(),
            zone: cell.spec.zone.clone(),
            state: cell_row::state(cell),
            flaps: status.flaps.unwrap_or(0),
            recovery: status.last_recovery.clone()?,
        })
    }

    /// When it was lost, as far as that is known.
    fn time(&self) -> Option<Timestamp> {
        let recovery = &self.recovery;
        let known = recovery
            .lost_time
            .as_ref()
            .or(recovery.detected_time.as_ref());
        known.map(|time| time.0)
    }
}

/// The time from the loss to one of the moments after it.
fn after(from: &Option<MicroTime>, to: &Option<MicroTime>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => span(from.0, to.0),
        (None, Some(_)) => "?".into(),
        (_, None) => String::new(),
    }
}

impl Row for Loss {
    const HEADS: &'static [(&'static str, bool)] = &[
        ("CELL", false),
        ("ZONE", false),
        ("STATE", false),
        ("LOST", false),
        ("DETECTED", false),
        ("RECOVERED", false),
        ("LRPS", false),
        ("WAITING", false),
        ("TASKS", false),
        ("SOURCE", true),
        ("EPOCH", true),
        ("CONFIRMED", true),
        ("FLAPS", true),
    ];

    fn values(&self, now: Timestamp) -> Vec<String> {
        let recovery = &self.recovery;
        let lost = match self.time() {
            Some(time) => format!("{} ago", age(time, now)),
            None => "?".into(),
        };
        let recovered = after(&recovery.lost_time, &recovery.recovered_time);
        vec![
            self.cell.clone(),
            self.zone.clone(),
            self.state.clone(),
            lost,
            after(&recovery.lost_time, &recovery.detected_time),
            if recovered.is_empty() {
                "under way".into()
            } else {
                recovered
            },
            recovery.actual_lrps.to_string(),
            recovery.waiting_actual_lrps.to_string(),
            recovery.tasks.to_string(),
            recovery.source.clone().unwrap_or_default(),
            recovery.epoch.to_string(),
            if recovery.confirmed == Some(true) {
                "yes".into()
            } else {
                String::new()
            },
            self.flaps.to_string(),
        ]
    }

    fn id(&self) -> String {
        Kind::Cell.id(&self.cell)
    }
}

/// Shows the last losses, the newest first.
///
/// # Errors
/// When the Cells can't be read.
pub async fn run(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let cells = cluster.cells_named(names).await?;
    let mut losses: Vec<Loss> = cells.iter().filter_map(Loss::of).collect();
    losses.sort_by_key(|loss| std::cmp::Reverse(loss.time()));
    if losses.is_empty() {
        say("no Cell has been lost, of those that are still there");
    }
    screen.show(&losses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::cell;

    #[test]
    fn a_loss_in_one_row() {
        let at = |millis| Some(MicroTime(Timestamp::from_millisecond(millis).unwrap()));
        let mut lost = cell("a", "z1", "False", "PresenceExpired");
        assert!(Loss::of(&lost).is_none());
        lost.status.as_mut().unwrap().last_recovery = Some(LastRecovery {
            epoch: 7,
            lost_time: at(10_000),
            detected_time: at(10_063),
            recovered_time: at(10_310),
            actual_lrps: 3,
            waiting_actual_lrps: 1,
            tasks: 2,
            source: Some("watch".into()),
            confirmed: None,
        });
        let now = Timestamp::from_second(70).unwrap();
        let mut loss = Loss::of(&lost).unwrap();
        let row = "a z1 Missing 60s ago +0.063s +0.310s 3 1 2 watch 7  0";
        assert_eq!(loss.values(now).join(" "), row);
        loss.recovery.recovered_time = None;
        loss.recovery.lost_time = None;
        let row = "a z1 Missing 59s ago ? under way 3 1 2 watch 7  0";
        assert_eq!(loss.values(now).join(" "), row);
        let json = serde_json::to_value(&loss).unwrap();
        assert_eq!(
            (&json["cell"], &json["actualLRPs"]),
            (&"a".into(), &3.into())
        );
    }
}
