//! The end of a row: everything gets the time that it needs, and then what is not as desired is said.

use std::collections::BTreeSet;
use std::time::Duration;

use diego_operator::api::TaskState;
use kube::ResourceExt;
use kube::api::ListParams;

use super::Stage;
use crate::observer::facts::{Fact, Run};
use crate::support::{Failure, eventually, unrest};

/// L1: a resync of 30 s, a TTL of 5 s, and the time that a start takes on busy cores.
const REST: Duration = Duration::from_secs(30 + 5 + 20);

impl Stage {
    /// Gives everything the time it needs, and says what was not kept since the row, or the round, began.
    pub async fn conclude(&self) -> Result<(), Failure> {
        let log = &self.observer().log;
        let mut last = None;
        let rest = eventually("all is as desired", REST, || async {
            match self.difference().await {
                Ok(None) => Some(()),
                Ok(Some(difference)) => None.inspect(|()| drop(difference)),
                Err(_) => None,
            }
        })
        .await;
        if rest.is_err() {
            last = match self.difference().await {
                Ok(difference) => difference,
                Err(failure) => Some(failure.to_string()),
            };
        }
        log.add(Fact::Rest { difference: last });
        let found = self.observer().violations(&self.strict);
        if found.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        Err(format!("not kept:\n{}", lines.join("\n")).into())
    }

    /// What runs and the observer has not heard of from records and presences: it would not have heard of a violation.
    fn unheard(&self, living: &[Run]) -> Option<String> {
        let entries = self.observer().log.entries();
        let told = |run: &Run| {
            entries.iter().any(|entry| match (&entry.fact, run.index) {
                (Fact::Lrp(lrp), Some(_)) => lrp.guid.as_deref() == Some(&run.guid),
                (Fact::Task(task), None) => {
                    task.name == run.process && task.state == TaskState::Running
                }
                _ => false,
            })
        };
        let registered = |run: &Run| {
            entries.iter().any(
                |entry| matches!(&entry.fact, Fact::Registered { cell, .. } if *cell == run.cell),
            )
        };
        let mut unheard = living.iter().filter(|run| !told(run) || !registered(run));
        let run = unheard.next()?;
        Some(format!("the observer has not heard of {run:?}"))
    }

    /// What is not as it should be once everything has come to rest.
    async fn difference(&self) -> Result<Option<String>, Failure> {
        let mut guids: BTreeSet<String> = BTreeSet::new();
        for (process, instances) in &self.wanted {
            let records = self.site.instances(process).await?;
            let indices: Vec<i32> = records.iter().map(|record| record.spec.index).collect();
            if indices != (0..*instances).collect::<Vec<_>>() {
                return Ok(Some(format!(
                    "{process} has the indices {indices:?} of {instances}"
                )));
            }
            for record in records {
                if let Some(why) = unrest(&record) {
                    return Ok(Some(why));
                }
                guids.extend(record.status.and_then(|status| status.instance_guid));
            }
        }
        for task in self.site.tasks().list(&ListParams::default()).await?.items {
            let status = task.status.clone().unwrap_or_default();
            let waits = self.waiting.contains(&task.name_any());
            match status.state {
                TaskState::Pending if waits => {}
                TaskState::Pending => return Ok(Some(format!("{} is Pending", task.name_any()))),
                _ if waits => return Ok(Some(format!("{} is {status:?}", task.name_any()))),
                TaskState::Running => guids.extend(status.instance_guid),
                TaskState::Completed | TaskState::Resolving => {}
            }
        }
        let living = self.observer().living();
        let running: BTreeSet<String> = living.iter().map(|run| run.guid.clone()).collect();
        if running == guids {
            return Ok(self.unheard(&living));
        }
        let strangers: Vec<_> = living
            .iter()
            .filter(|run| !guids.contains(&run.guid))
            .collect();
        let lost: Vec<&String> = guids.difference(&running).collect();
        Ok(Some(format!(
            "processes without a record: {strangers:?}; records without a process: {lost:?}"
        )))
    }
}
