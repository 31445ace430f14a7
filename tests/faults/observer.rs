//! Looks at the installation from outside, and says what it does not keep of what the design promises.

pub mod examples;
pub mod facts;
pub mod judge;
mod known;
mod leases;
mod processes;
mod watches;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use diego_operator::api::{ActualLRP, Cell, Task};
use kube::Client;
use tokio::task::JoinSet;

use crate::support::Failure;
use facts::{Entry, Fact, Nanos, Run, now};
use judge::Violation;

/// All that was seen; its clones are the same log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    /// Adds what is seen now.
    pub fn add(&self, fact: Fact) {
        self.add_at(now(), fact);
    }

    fn add_at(&self, at: Nanos, fact: Fact) {
        let entry = Entry { at, fact };
        self.0.lock().expect("not poisoned").push(entry);
    }

    /// All of it, by time.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.0.lock().expect("not poisoned").clone();
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

/// Where it looks for presences.
pub enum Presences {
    /// In the members of an etcd.
    Etcd(Vec<String>),
    /// In the API server.
    Leases,
}

/// Watches until it is dropped.
pub struct Observer {
    /// What was seen.
    pub log: Log,
    path: PathBuf,
    _processes: processes::Processes,
    _watches: JoinSet<()>,
}

impl Observer {
    /// Begins to watch; the instances write into a file of that name.
    pub fn start(client: Client, presences: Presences, path: &Path) -> Result<Observer, Failure> {
        std::fs::write(path, "")?;
        let log = Log::default();
        let mut watches = JoinSet::new();
        watches.spawn(watches::records::<ActualLRP>(
            client.clone(),
            log.clone(),
            |lrp| Fact::Lrp(lrp.into()),
        ));
        watches.spawn(watches::records::<Task>(
            client.clone(),
            log.clone(),
            |task| Fact::Task(task.into()),
        ));
        watches.spawn(watches::records::<Cell>(
            client.clone(),
            log.clone(),
            |cell| Fact::Cell(cell.into()),
        ));
        match presences {
            // One member may be the one that breaks: whichever tells first is believed.
            Presences::Etcd(endpoints) => {
                for endpoint in endpoints {
                    watches.spawn(watches::presences(endpoint, log.clone()));
                }
            }
            Presences::Leases => {
                watches.spawn(leases::presences(client, log.clone()));
            }
        }
        Ok(Observer {
            _processes: processes::Processes::follow(path, log.clone()),
            log,
            path: path.to_owned(),
            _watches: watches,
        })
    }

    /// What an instance runs: its command and arguments.
    pub fn command(&self) -> Result<[String; 3], Failure> {
        let program = std::env::current_exe()?.display().to_string();
        let log = self.path.display().to_string();
        Ok([program, "instance".to_owned(), log])
    }

    /// Something is done to the installation.
    pub fn stimulus(&self) {
        self.log.add(Fact::Stimulus);
    }

    /// Every run so far, when it began, and when it was last seen if it has ended.
    pub fn runs(&self) -> Vec<(Nanos, Run, Option<Nanos>)> {
        let mut runs: Vec<(Nanos, Run, Option<Nanos>)> = Vec::new();
        for entry in self.log.entries() {
            match entry.fact {
                Fact::Started(run) => runs.push((entry.at, run, None)),
                Fact::Ended { guid, pid, alive } => {
                    let same = |one: &&mut (Nanos, Run, Option<Nanos>)| {
                        one.1.guid == guid && one.1.pid == pid
                    };
                    if let Some(one) = runs.iter_mut().find(same) {
                        one.2 = Some(alive);
                    }
                }
                _ => {}
            }
        }
        runs
    }

    /// The runs that were not seen to end.
    pub fn living(&self) -> Vec<Run> {
        let runs = self.runs().into_iter();
        runs.filter(|(_, _, ended)| ended.is_none())
            .map(|(_, run, _)| run)
            .collect()
    }

    /// What was not kept.
    pub fn violations(&self, strict: &BTreeSet<String>) -> Vec<Violation> {
        judge::judge(&self.log.entries(), strict)
    }
}
