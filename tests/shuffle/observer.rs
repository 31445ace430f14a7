//! Looks on from outside by clients that pass no shuffler; the judge is that of the fault matrix.
#![allow(dead_code)]

#[path = "../faults/observer/facts.rs"]
pub mod facts;
#[path = "../faults/observer/judge.rs"]
pub mod judge;
#[path = "../faults/observer/known.rs"]
mod known;
#[path = "../faults/observer/watches.rs"]
mod watches;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use diego_operator::api::{ActualLRP, Cell, Task};
use kube::Client;
use tokio::task::JoinSet;

use facts::{Entry, Fact, now};
use judge::Violation;

/// All that was seen; its clones are the same log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    /// Adds what is seen now.
    pub fn add(&self, fact: Fact) {
        let entry = Entry { at: now(), fact };
        self.0.lock().expect("not poisoned").push(entry);
    }

    /// How many records were written so far.
    pub fn writes(&self) -> usize {
        let log = self.0.lock().expect("not poisoned");
        let writes = log
            .iter()
            .filter(|entry| matches!(entry.fact, Fact::Lrp(_) | Fact::Task(_) | Fact::Cell(_)));
        writes.count()
    }

    /// The runs that are not over.
    pub fn living(&self) -> BTreeSet<String> {
        let mut living = BTreeSet::new();
        for entry in self.0.lock().expect("not poisoned").iter() {
            match &entry.fact {
                Fact::Started(run) => drop(living.insert(run.guid.clone())),
                Fact::Ended { guid, .. } => drop(living.remove(guid)),
                _ => {}
            }
        }
        living
    }

    /// What was not kept.
    pub fn violations(&self) -> Vec<Violation> {
        let mut log = self.entries();
        log.extend(never_run(&log));
        log.sort_by_key(|entry| entry.at);
        judge::judge(&log, &BTreeSet::new())
    }

    /// All of it, by time.
    pub fn entries(&self) -> Vec<Entry> {
        let mut log = self.0.lock().expect("not poisoned").clone();
        log.sort_by_key(|entry| entry.at);
        log
    }
}

/// What never ran was over from the start: that it is placed anew moves nothing. A controller that dies between a claim
/// and its Pod leaves such a claim behind.
fn never_run(log: &[Entry]) -> Vec<Entry> {
    let (mut claimed, mut ran) = (BTreeSet::new(), BTreeSet::new());
    for entry in log {
        match &entry.fact {
            Fact::Lrp(lrp) => claimed.extend(lrp.guid.clone()),
            Fact::Started(run) => drop(ran.insert(run.guid.clone())),
            _ => {}
        }
    }
    let over = |guid: &String| Entry {
        at: 0,
        fact: Fact::Ended {
            guid: guid.clone(),
            pid: 0,
            alive: 0,
        },
    };
    claimed.difference(&ran).map(over).collect()
}

/// Follows the records and the presences until it is dropped.
pub fn follow(client: &Client, etcd: &[String], log: &Log) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let new = || (client.clone(), log.clone());
    let (of_lrps, lrps) = new();
    watches.spawn(watches::records::<ActualLRP>(of_lrps, lrps, |lrp| {
        Fact::Lrp(lrp.into())
    }));
    let (of_tasks, tasks) = new();
    watches.spawn(watches::records::<Task>(of_tasks, tasks, |task| {
        Fact::Task(task.into())
    }));
    let (of_cells, cells) = new();
    watches.spawn(watches::records::<Cell>(of_cells, cells, |cell| {
        Fact::Cell(cell.into())
    }));
    for endpoint in etcd {
        watches.spawn(watches::presences(endpoint.clone(), log.clone()));
    }
    watches
}
