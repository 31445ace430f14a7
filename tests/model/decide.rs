//! What the product decides: the verdict on a Cell, and the plan for every record.

use std::sync::Arc;

use diego_operator::api::template::Resources;
use diego_operator::api::{CellState, CellStatus, ExecutorKind, MissingCellPolicy};
use diego_operator::converge::cell::{self, LossTimes, Observation, Source, Verdict};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::plan::{self, Rules, Scope};
use diego_operator::converge::world::{self, CellRecord, Desired, TaskRecord, Version, World};
use diego_operator::presence::{Presence, PresencePhase};
use serde_json::json;

use crate::real::{
    Known, cell_name, guid_name, job, lrp_status, now, recall, slot, small, task_status, then,
};
use crate::state::{CellId, Epoch, Key, Ledger, Record, Seen, Standing};

/// Guids of runs that a plan makes: from here on.
const NEW: u8 = 200;

// The ledger

pub fn cell_record(cell: CellId, ledger: &Ledger) -> CellRecord {
    CellRecord {
        version: version(&cell_name(cell)),
        generation: 1,
        zone: format!("zone-{cell}"),
        executor: ExecutorKind::Process,
        node: None,
        capacity: Resources {
            memory: 1 << 30,
            disk: 1 << 30,
            cpu: 0,
        },
        containers: 250,
        required_tags: Vec::new(),
        optional_tags: Vec::new(),
        unschedulable: false,
        evacuate: false,
        loss_confirmed: false,
        status: CellStatus {
            state: Some(match ledger.state {
                Standing::Present => CellState::Present,
                Standing::Missing => CellState::Missing,
            }),
            epoch: Some(ledger.epoch.into()),
            incarnation_epoch: Some(ledger.first.into()),
            incarnation: Some(ledger.life.to_string()),
            fenced: ledger.fenced.then_some(true),
            ..CellStatus::default()
        },
    }
}

fn ledger(status: &CellStatus) -> Ledger {
    let life = status.incarnation.as_deref().expect("an incarnation");
    Ledger {
        state: match status.state {
            Some(CellState::Present) => Standing::Present,
            Some(CellState::Missing) => Standing::Missing,
            other => panic!("the model has no Cell that is {other:?}"),
        },
        life: life.parse().expect("a number"),
        epoch: small(status.epoch.expect("an epoch")),
        first: small(status.incarnation_epoch.expect("a first epoch")),
        fenced: status.fenced == Some(true),
    }
}

fn presence(cell: CellId, key: &Key) -> Presence {
    let value = json!({
        "cellId": cell_name(cell),
        "incarnation": key.life.to_string(),
        "ttlSeconds": 5,
        "firstEpoch": key.first,
        "epochBase": key.base,
        "fence": key.fenced,
    });
    Presence {
        cell: cell_name(cell),
        epoch: key.epoch.into(),
        value: Some(serde_json::from_value(value).expect("a presence value")),
    }
}

/// The product's verdict, and the ledger after it.
/// `recorded` is the greatest epoch under which any work is recorded on the Cell, up to the revision of the read.
pub fn judge(cell: CellId, before: Ledger, seen: Seen, recorded: Epoch) -> (Verdict, Ledger) {
    type Asked = (CellId, Ledger, Seen, Epoch);
    thread_local!(static KNOWN: Known<Asked, (Verdict, Ledger)> = Known::default());
    recall(&KNOWN, (cell, before, seen, recorded), || {
        let record = cell_record(cell, &before);
        let seen = match seen {
            Seen::Held(key) => Observation::Held(presence(cell, &key)),
            Seen::Gone { ledger, revision } => Observation::Gone {
                ledger_epoch: Some(ledger.into()),
                revision: revision.into(),
                recorded: recorded.into(),
                phase: Some(PresencePhase::Held),
                fence: None,
            },
        };
        let times = LossTimes {
            lost: then(),
            detected: then(),
            source: Source::Watch,
            confirmed: false,
        };
        let gone = matches!(seen, Observation::Gone { .. });
        let verdict = cell::judge(&record, &seen);
        let next = cell::apply(&record, &seen, verdict, gone.then_some(times), then());
        (verdict, ledger(&next))
    })
}

// Plans

/// What a controller decides on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub ledgers: Vec<Ledger>,
    pub records: Vec<Record>,
    pub late: bool,
    pub strict: bool,
}

fn version(uid: &str) -> Version {
    Version {
        uid: uid.to_owned(),
        revision: 1,
        generation: 1,
        deleting: false,
    }
}

/// What the product's plan makes of each record, if anything. New runs have guids from [`NEW`] on.
pub fn plan(known: &Question) -> Vec<Option<Record>> {
    thread_local!(static KNOWN: Known<Question, Vec<Option<Record>>> = Known::default());
    recall(&KNOWN, known.clone(), || {
        let mut world = World::default();
        for (cell, ledger) in known.ledgers.iter().enumerate() {
            world.put_cell(&cell_name(cell), cell_record(cell, ledger));
        }
        let key = |name: String| world::Key::new("default", name);
        for (number, record) in known.records.iter().enumerate() {
            match record {
                Record::Lrp(slot) => {
                    let process = format!("lrp{number}");
                    let uid = format!("desired-{process}");
                    let desired = Desired {
                        version: version(&uid),
                        instances: 1,
                        domain: None,
                        policy: match known.strict {
                            true => MissingCellPolicy::Strict,
                            false => MissingCellPolicy::Suspect,
                        },
                        demand: Ok(Arc::new(Demand::default())),
                        status: Default::default(),
                    };
                    world.put_desired(&key(process.clone()), desired);
                    let lrp = world::Lrp {
                        version: version(&process),
                        process: process.clone(),
                        index: 0,
                        owner: Some(uid),
                        status: lrp_status(slot),
                    };
                    world.put_lrp(&key(format!("{process}-0")), lrp);
                }
                Record::Task(job) => {
                    let task = TaskRecord {
                        version: version(&format!("task{number}")),
                        created: then(),
                        cancelled: false,
                        callback: None,
                        seen_finished: None,
                        keep: None,
                        demand: Ok(Arc::new(Demand::default())),
                        status: task_status(job),
                    };
                    world.put_task(&key(format!("task{number}")), task);
                }
            }
        }
        let mut next = NEW;
        let mut new_guid = || {
            next += 1;
            guid_name(next)
        };
        let rules = Rules::default();
        let plan = plan::plan(
            &mut world,
            &Scope::All,
            &rules,
            now(known.late),
            &mut new_guid,
        );
        assert_eq!(plan.refused, [], "the rules ask for what may not be");
        let mut found = vec![None; known.records.len()];
        for write in &plan.writes {
            match write {
                plan::Write::LrpStatus { key, to, .. } => {
                    found[number_of(&key.name)] = Some(Record::Lrp(slot(to)));
                }
                plan::Write::TaskStatus { key, to, .. } => {
                    found[number_of(&key.name)] = Some(Record::Task(job(to)));
                }
                // Finished and old: the model keeps it, to see that nothing changes it.
                plan::Write::DeleteTask { .. } => {}
                other => panic!("the model has no {}", other.what()),
            }
        }
        for (to, from) in found.iter_mut().zip(&known.records) {
            *to = to.filter(|to| to != from);
        }
        found
    })
}

/// Whether a plan made this guid.
pub fn is_new(guid: u8) -> bool {
    guid >= NEW
}

fn number_of(name: &str) -> usize {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = number.split('-').next().expect("a number");
    number.parse().expect("a number")
}
