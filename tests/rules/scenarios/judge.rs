//! The line of a scenario in which the presence store answers: the verdict on a Cell.

use diego_operator::converge::cell::{self, Observation, Verdict};
use diego_operator::presence::{Presence, PresencePhase, PresenceValue};
use k8s_openapi::jiff::Timestamp;

use super::read::{number, options};
use crate::world::Sandbox;

/// `presence of a held@5 [incarnation=NAME] [first=EPOCH] [draining] [unreadable]`, or
/// `presence of a gone [ledger=EPOCH] [revision=N] [draining|released]`: what is read, and what is made of it.
pub fn presence(sandbox: &mut Sandbox, words: &[&str], now: Timestamp) -> Result<String, String> {
    let ["of", name, what, ..] = words else {
        return Err("write: presence of CELL held@EPOCH ..., or presence of CELL gone ...".into());
    };
    let record = sandbox.world.cells().get(*name).cloned();
    let record = record.ok_or_else(|| format!("there is no Cell {name}"))?;
    let options = options(&words[3..]);
    let phase = match (
        options.contains_key("draining"),
        options.contains_key("released"),
    ) {
        (true, _) => Some(PresencePhase::Draining),
        (false, true) => Some(PresencePhase::Released),
        (false, false) => None,
    };
    let number_of = |option: &str| options.get(option).map(|text| number(text)).transpose();
    let seen = match what.split_once('@') {
        Some(("held", epoch)) => {
            let epoch = number(epoch)?;
            let incarnation = options
                .get("incarnation")
                .map(|text| (*text).to_owned())
                .or_else(|| record.status.incarnation.clone());
            let value = PresenceValue {
                cell_id: (*name).to_owned(),
                incarnation: incarnation.unwrap_or_default(),
                ttl: std::time::Duration::from_secs(5),
                phase: phase.unwrap_or_default(),
                owner: String::new(),
                holder: String::new(),
                first_epoch: number_of("first")?,
                epoch_base: 0,
                epoch: None,
                fence: false,
            };
            Observation::Held(Presence {
                cell: (*name).to_owned(),
                epoch,
                value: (!options.contains_key("unreadable")).then_some(value),
            })
        }
        Some(_) => return Err(format!("{what:?}: write held@EPOCH or gone")),
        None => {
            let revision = number_of("revision")?.or(record.status.epoch).unwrap_or(0);
            Observation::Gone {
                ledger_epoch: number_of("ledger")?.or(record.status.epoch),
                revision,
                recorded: sandbox.world.recorded_epoch(name, revision),
                phase,
                fence: None,
            }
        }
    };
    let verdict = cell::judge(&record, &seen);
    let status = cell::apply(&record, &seen, verdict, None, now);
    let state = status
        .state
        .map_or("without a state".into(), |state| format!("{state:?}"));
    let line = format!(
        "{}: {name} is {state}, epoch {}, incarnation since epoch {}\n",
        word(verdict),
        status.epoch.unwrap_or(0),
        status.incarnation_epoch.unwrap_or(0),
    );
    let mut next = record;
    next.version = sandbox.version(&next.version.uid);
    next.status = status;
    sandbox.world.put_cell(name, next);
    Ok(line)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unchanged => "nothing new",
        Verdict::NewIncarnation => "a new incarnation",
        Verdict::Returned => "back with its containers",
        Verdict::Evacuating => "draining",
        Verdict::Evacuated => "gave its presence back",
        Verdict::Lost => "lost",
    }
}
