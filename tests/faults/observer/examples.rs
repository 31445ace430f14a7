//! Who watches the observer: a log that keeps everything, and for each invariant logs that break it.

use std::collections::BTreeSet;
use std::time::Duration;

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::task::CELL_DISAPPEARED;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::facts::{CellWrite, Entry, Fact, Lrp, Run, SECOND, TaskWrite, Within};
use super::judge::{Invariant, judge};
use crate::support::Failure;

/// A Cell is lost, its instance becomes suspect and runs elsewhere, its Task fails.
fn well() -> Vec<Fact> {
    vec![
        registered("a", 5),
        registered("b", 6),
        Fact::Lrp(lrp("u0", ActualLRPState::Running, ("a", 5), None)),
        started("web", Some(0), "g1", 1, "a"),
        Fact::Task(task(TaskState::Running, None)),
        started("job", None, "g2", 2, "a"),
        Fact::Stimulus,
        ended("g1", 1),
        ended("g2", 2),
        gone("a", 5),
        Fact::Cell(cell(9, Some(5))),
        Fact::Lrp(lrp("u0", ActualLRPState::Claimed, ("b", 6), Some(("a", 5)))),
        Fact::Task(task(TaskState::Completed, Some(CELL_DISAPPEARED))),
        started("web", Some(0), "g3", 3, "b"),
        Fact::Lrp(lrp("u0", ActualLRPState::Running, ("b", 6), None)),
        Fact::Recovered {
            took: 5 * SECOND,
            within: Within {
                promised: Duration::from_secs(5),
                allowance: Duration::from_secs(1),
            },
        },
        Fact::Rest { difference: None },
    ]
}

/// The same, with changes of an instance that have another cause than the loss of its Cell.
fn good() -> Vec<(&'static str, Vec<Fact>)> {
    let then = |change: Lrp, more: Vec<Fact>| {
        let mut log = well();
        let facts = more.into_iter().chain([Fact::Lrp(change)]);
        log.splice(7..7, facts.chain(vec![Fact::Stimulus; 11]));
        log
    };
    let unclaimed = Lrp {
        place: None,
        guid: None,
        ..lrp("u0", ActualLRPState::Unclaimed, ("a", 5), None)
    };
    let crashed = Lrp {
        crashed: Some(MicroTime(Timestamp::UNIX_EPOCH)),
        ..unclaimed.clone()
    };
    let evacuated = Lrp {
        evacuating: Some("g1".into()),
        ..lrp("u0", ActualLRPState::Unclaimed, ("b", 6), None)
    };
    let leaves = Fact::Cell(CellWrite {
        leaves: true,
        ..cell(5, None)
    });
    let forged = Lrp {
        guid: Some("g9".into()),
        ..lrp("u0", ActualLRPState::Running, ("b", 6), None)
    };
    let forgery = Fact::Forged { guid: "g9".into() };
    vec![
        ("a loss", well()),
        ("a crash", then(crashed, Vec::new())),
        ("an evacuation", then(evacuated, Vec::new())),
        ("a Cell that leaves", then(unclaimed, vec![leaves])),
        ("a forgery", then(forged, vec![forgery])),
    ]
}

/// What breaks which invariant: facts that are added at a place of the good log, or that replace one of it.
fn ill() -> Vec<(Invariant, &'static str, Vec<Fact>)> {
    let with = |at: usize, facts: Vec<Fact>| {
        let mut log = well();
        log.splice(at..at, facts);
        log
    };
    let without = |what: fn(&Fact) -> bool| {
        let mut log = well();
        log.retain(|fact| !what(fact));
        log
    };
    let only = |keep: fn(&Fact) -> bool| {
        let mut log = without(|fact| matches!(fact, Fact::Gone { .. }));
        let acts = |fact: &Fact| match fact {
            Fact::Cell(_) => true,
            Fact::Lrp(lrp) => lrp.suspect.is_some(),
            Fact::Task(task) => task.is_lost(),
            _ => false,
        };
        log.retain(|fact| !acts(fact) || keep(fact));
        log
    };
    let again = |facts: Fact, times: usize| with(7, vec![facts; times]);
    let late = TaskWrite {
        outcome: (Some(false), None, Some("forty-two".into())),
        ..task(TaskState::Completed, None)
    };
    let mut slow = well();
    for fact in &mut slow {
        if let Fact::Recovered { took, .. } = fact {
            *took = 7 * SECOND;
        }
    }
    let running = |place| Fact::Lrp(lrp("u0", ActualLRPState::Running, place, None));
    // Longer before the presence is gone than any lag of the observer.
    let early = |fact: Fact| {
        let mut facts = vec![fact];
        facts.resize(12, Fact::Stimulus);
        with(7, facts)
    };
    let other = Lrp {
        guid: Some("g9".into()),
        ..lrp("u0", ActualLRPState::Running, ("a", 5), None)
    };
    vec![
        (
            Invariant::S3,
            "a verdict a second before the presence is gone",
            early(Fact::Cell(cell(9, Some(5)))),
        ),
        (
            Invariant::S3,
            "an instance moved, and no suspect kept",
            early(running(("b", 6))),
        ),
        (
            Invariant::S3,
            "another instance where one runs",
            early(Fact::Lrp(other)),
        ),
        (
            Invariant::S1,
            "two records of one slot",
            with(
                15,
                vec![Fact::Lrp(lrp(
                    "u1",
                    ActualLRPState::Unclaimed,
                    ("b", 6),
                    None,
                ))],
            ),
        ),
        (
            Invariant::S1,
            "a guid that runs twice",
            with(15, vec![started("web", Some(0), "g3", 4, "b")]),
        ),
        (
            Invariant::S2,
            "a Task that starts twice",
            with(14, vec![started("job", None, "g4", 4, "b")]),
        ),
        (
            Invariant::S2,
            "a Task that is told twice",
            with(14, vec![Fact::Task(late)]),
        ),
        (
            Invariant::S2,
            "a Task that begins again",
            with(14, vec![Fact::Task(task(TaskState::Pending, None))]),
        ),
        (
            Invariant::S3,
            "a verdict on a Cell that was there",
            only(|fact| matches!(fact, Fact::Cell(_))),
        ),
        (
            Invariant::S3,
            "an instance moved off a Cell that was there",
            only(|fact| matches!(fact, Fact::Lrp(_))),
        ),
        (
            Invariant::S3,
            "a Task failed on a Cell that was there",
            only(|fact| matches!(fact, Fact::Task(_))),
        ),
        (
            Invariant::S4,
            "a Cell's epoch that goes back",
            with(11, vec![Fact::Cell(cell(4, Some(5)))]),
        ),
        (
            Invariant::S4,
            "a late write of an older epoch",
            with(16, vec![running(("b", 3))]),
        ),
        (
            Invariant::S5,
            "a routable instance beside a suspect",
            with(
                15,
                vec![Fact::Lrp(lrp(
                    "u0",
                    ActualLRPState::Running,
                    ("b", 6),
                    Some(("a", 5)),
                ))],
            ),
        ),
        (
            Invariant::S6,
            "two running at once",
            without(|fact| matches!(fact, Fact::Ended { guid, .. } if guid == "g1")),
        ),
        (Invariant::S7, "a hot loop", again(running(("a", 5)), 31)),
        (
            Invariant::S7,
            "a slow loop over many stimuli",
            again(Fact::Stimulus, 1)
                .into_iter()
                .flat_map(|fact| match fact {
                    Fact::Stimulus => (0..70)
                        .flat_map(|_| [Fact::Stimulus, running(("a", 5))])
                        .collect(),
                    fact => vec![fact],
                })
                .collect(),
        ),
        (
            Invariant::L1,
            "something that is missing in the end",
            with(
                17,
                vec![Fact::Rest {
                    difference: Some("web-0 does not run".into()),
                }],
            ),
        ),
        (Invariant::L2, "a recovery that takes too long", slow),
    ]
}

/// Shows that the observer complains of what it must, and of nothing else. Returns how many logs it was shown.
pub fn show() -> Result<usize, Failure> {
    let strict = BTreeSet::from(["web".to_owned()]);
    for (what, facts) in good() {
        let found = judge(&log(facts), &strict);
        if !found.is_empty() {
            return Err(format!("the observer complains of a good log, {what}: {found:?}").into());
        }
    }
    let logs = ill();
    for (invariant, what, facts) in &logs {
        // Two runs at once break S1 or S2 by themselves.
        let strict = strict.iter().filter(|_| *invariant == Invariant::S6);
        let found = judge(&log(facts.clone()), &strict.cloned().collect());
        let exactly = !found.is_empty() && found.iter().all(|one| one.invariant == *invariant);
        if !exactly {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            return Err(format!("{what} should break {invariant:?}, not {found:#?}").into());
        }
    }
    for invariant in Invariant::ALL {
        if !logs.iter().any(|(broken, ..)| *broken == invariant) {
            return Err(format!("no log breaks {invariant:?}").into());
        }
    }
    Ok(logs.len())
}

/// A tenth of a second between any two.
fn log(facts: Vec<Fact>) -> Vec<Entry> {
    let mut at = SECOND;
    let mut log = Vec::new();
    for mut fact in facts {
        at += SECOND / 10;
        if let Fact::Ended { alive, .. } = &mut fact {
            *alive = at - SECOND / 100;
        }
        log.push(Entry { at, fact });
    }
    log
}

fn registered(cell: &str, epoch: i64) -> Fact {
    Fact::Registered {
        cell: cell.into(),
        epoch,
    }
}

fn gone(cell: &str, epoch: i64) -> Fact {
    Fact::Gone {
        cell: cell.into(),
        epoch,
    }
}

fn started(process: &str, index: Option<i32>, guid: &str, pid: u32, cell: &str) -> Fact {
    Fact::Started(Run {
        process: process.into(),
        index,
        guid: guid.into(),
        pid,
        cell: cell.into(),
    })
}

fn ended(guid: &str, pid: u32) -> Fact {
    Fact::Ended {
        guid: guid.into(),
        pid,
        alive: 0,
    }
}

fn lrp(
    uid: &str,
    state: ActualLRPState,
    (cell, epoch): (&str, i64),
    suspect: Option<(&str, i64)>,
) -> Lrp {
    Lrp {
        uid: uid.into(),
        process: "web".into(),
        index: 0,
        state,
        place: Some((cell.into(), epoch)),
        guid: Some(guid_on(cell)),
        suspect: suspect.map(|(cell, epoch)| (cell.to_owned(), epoch)),
        suspect_guid: suspect.map(|(cell, _)| guid_on(cell)),
        ..Lrp::default()
    }
}

/// The run of the good log on this Cell.
fn guid_on(cell: &str) -> String {
    if cell == "a" { "g1" } else { "g3" }.to_owned()
}

fn task(state: TaskState, why: Option<&str>) -> TaskWrite {
    TaskWrite {
        uid: "t0".into(),
        name: "job".into(),
        state,
        place: Some(("a".into(), 5)),
        outcome: (why.map(|_| true), why.map(str::to_owned), None),
    }
}

fn cell(epoch: i64, lost: Option<i64>) -> CellWrite {
    CellWrite {
        uid: "c0".into(),
        name: "a".into(),
        epoch: Some(epoch),
        lost,
        leaves: false,
    }
}
