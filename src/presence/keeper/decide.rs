//! What to do about a key that is already there: a function of what was found, and of who we are.

use std::time::Duration;

use super::super::PresenceValue;
use super::backend::Epochs;

/// How the mark of a machine begins; its boot's id follows.
pub(super) const BOOT: &str = "boot-";

/// The Cell's key as it was found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its value, where it can be read.
    pub value: Option<PresenceValue>,
    /// Its epoch, counted on from the base (etcd: the store's revision at which it was created).
    pub count: i64,
    /// This very keeper wrote it: a try that was carried out, though its answer got lost.
    pub own: bool,
    /// Nobody is registered by it any more (expired, or given back) or yet. In etcd there is no such key.
    pub over: bool,
    /// For how long it is known not to have changed. In etcd a renewal does not change the key, so nothing is known.
    pub silent: Duration,
}

impl Found {
    /// What its epoch is counted on from.
    pub fn base(&self) -> i64 {
        self.value.as_ref().map_or(0, |value| value.epoch_base)
    }

    /// Its epoch.
    pub fn epoch(&self) -> i64 {
        self.base().saturating_add(self.count)
    }

    /// What is said of the registrations before it, by whoever takes it over: as it said itself. `ours` is what this
    /// keeper knows, for one that can't be read.
    pub fn epochs(&self, ours: Epochs) -> Epochs {
        Epochs {
            base: self.base(),
            first: match &self.value {
                Some(value) => value.first_epoch,
                None => ours.first,
            },
        }
    }
}

/// What the epoch of a registration is counted on from, so that it is greater than `last`, the greatest epoch that is
/// known of the Cell. `base` is what the Cell's epochs were counted on from so far, `revision` the store's, which the
/// registration comes after.
pub fn epoch_base(base: i64, last: i64, revision: i64) -> i64 {
    if base.saturating_add(revision) >= last {
        base
    } else {
        last
    }
}

/// A successor that was silent for such a part of its TTL is dead or hangs: it renews every third of it.
const HEIR: f64 = 0.6;

/// Who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    /// The incarnation to register.
    pub incarnation: &'a str,
    /// What the key is marked with if it is our own, while that proves that a former life of this rep wrote it. It does so
    /// only for the first registration: once we hold the key ourselves, whoever takes it away with the same mark is a copy
    /// of our work directory, or our successor, and two that take the key from each other in turns would be worse than
    /// one that gives up.
    pub proof: Option<&'a str>,
    /// Whether `proof` is of the machine, and any machine's mark is ours: it has booted again since.
    pub machine: bool,
    /// What a key is marked with that we held once: under a smaller epoch than our last it is our own past, which a store
    /// that was restored from a backup has again.
    pub past: Option<&'a str>,
    /// What the key of our successor is marked with, which we take over again when it falls silent.
    pub heir: Option<&'a str>,
    /// The greatest epoch that is known of this Cell.
    pub last_epoch: i64,
    /// The greatest epoch under which this Cell was judged lost: nobody hears what goes on under it.
    pub dead_epoch: i64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody holds it: create it, or register anew by what is left of another registration.
    Create,
    /// It is ours: write it as our own; the epoch goes on.
    TakeOver,
    /// It is our former life's, whose containers are gone, or whose epoch is: mark it as restarting, end it, and register
    /// anew.
    Replace,
    /// It is another's: wait until it is gone.
    Wait,
}

/// The rule.
pub(super) fn decide(found: Option<&Found>, claim: Claim<'_>) -> Step {
    let Some(found) = found else {
        return Step::Create;
    };
    if found.over {
        return Step::Create;
    }
    let goes_on = found.epoch() >= claim.last_epoch && found.epoch() > claim.dead_epoch;
    let go_on = if goes_on {
        Step::TakeOver
    } else {
        Step::Replace
    };
    if found.own {
        return go_on;
    }
    let mark = found.value.as_ref().map(|value| value.owner.as_str());
    let is_past = claim.past.is_some_and(|past| mark == Some(past)) && mark != Some("");
    if is_past && found.epoch() < claim.last_epoch {
        return Step::Replace;
    }
    let silent = |value: &PresenceValue| {
        // Its TTL, not ours: an upgrade may have changed it.
        found.silent >= value.ttl.mul_f64(HEIR)
    };
    let heir = claim.heir.filter(|successor| {
        let value = found.value.as_ref();
        value.is_some_and(|value| value.owner == *successor && silent(value))
    });
    match (&found.value, claim.proof.or(heir)) {
        (Some(value), Some(owner)) if !owner.is_empty() && value.owner == owner => {
            if value.incarnation == claim.incarnation {
                go_on
            } else {
                Step::Replace
            }
        }
        (Some(value), Some(_)) if claim.machine && value.owner.starts_with(BOOT) => Step::Replace,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::PresencePhase;
    use super::*;

    fn found(owner: &str, incarnation: &str) -> Found {
        let value = PresenceValue {
            cell_id: "a".into(),
            incarnation: incarnation.into(),
            ttl: Duration::from_secs(5),
            phase: PresencePhase::Held,
            owner: owner.into(),
            holder: "it".into(),
            first_epoch: None,
            epoch_base: 0,
            epoch: None,
            fence: false,
        };
        Found {
            value: Some(value),
            count: 3,
            own: false,
            over: false,
            silent: Duration::ZERO,
        }
    }

    #[test]
    fn epochs_go_on_in_a_store_that_begins_anew() {
        for (base, last, revision, expected) in [
            (0, 0, 7, 0),
            (0, 7, 7, 0),
            (0, 53, 3, 53),
            // Counted on from 53, the Cell is known up to 56, and the store has come to 9.
            (53, 56, 9, 53),
            // It was emptied once more.
            (53, 90, 2, 90),
        ] {
            let chosen = epoch_base(base, last, revision);
            assert_eq!(
                chosen, expected,
                "base {base}, last {last}, revision {revision}"
            );
            assert!(chosen + revision + 1 > last);
        }
    }

    fn decided(found: Option<&Found>, proof: Option<&str>, last: i64, dead: i64) -> Step {
        let claim = Claim {
            incarnation: "boot-1",
            proof,
            machine: false,
            past: None,
            heir: None,
            last_epoch: last,
            dead_epoch: dead,
        };
        decide(found, claim)
    }

    #[test]
    fn every_case_of_a_key_that_is_there() {
        let unreadable = Found {
            value: None,
            ..found("", "")
        };
        let own = |found: Found| Found { own: true, ..found };
        let over = |found: Found| Found {
            over: true,
            ..found
        };
        let proof = Some("me");
        let (ours, former, other) = (
            found("me", "boot-1"),
            found("me", "boot-0"),
            found("it", "boot-1"),
        );
        // Name, key, proof, the last epoch known, the last epoch judged lost; the key's is 3.
        let table = [
            ("no key", None, proof, 0, 0, Step::Create),
            ("no key, no proof", None, None, 0, 0, Step::Create),
            ("our life goes on", Some(&ours), proof, 3, 2, Step::TakeOver),
            ("it ended", Some(&former), proof, 3, 2, Step::Replace),
            ("another rep", Some(&other), proof, 3, 2, Step::Wait),
            ("we can't prove it", Some(&ours), None, 3, 2, Step::Wait),
            ("unreadable", Some(&unreadable), proof, 3, 2, Step::Wait),
            ("an old epoch", Some(&ours), proof, 4, 2, Step::Replace),
            ("judged lost", Some(&ours), proof, 3, 3, Step::Replace),
        ];
        for (name, found, proof, last, dead, expected) in table {
            assert_eq!(decided(found, proof, last, dead), expected, "{name}");
            // What is over is nobody's.
            let found = found.cloned().map(over);
            let step = decided(found.as_ref(), proof, last, dead);
            assert_eq!(step, Step::Create, "{name}, and over");
        }
        let machine = |proof| Claim {
            incarnation: "2",
            proof,
            machine: true,
            past: None,
            heir: None,
            last_epoch: 3,
            dead_epoch: 2,
        };
        for (owner, proof, expected) in [
            ("boot-2", Some("boot-2"), Step::TakeOver),
            ("boot-1", Some("boot-2"), Step::Replace),
            ("me", Some("boot-2"), Step::Wait),
            ("boot-1", None, Step::Wait),
        ] {
            let found = found(owner, owner.trim_start_matches("boot-"));
            assert_eq!(decide(Some(&found), machine(proof)), expected, "{owner}");
        }
        // Superseded: with no proof any more, but as the heir of a successor that is silent.
        for (owner, ttl, silent, dead, expected) in [
            ("boot-2", 5, 2, 2, Step::Wait),
            ("boot-2", 5, 3, 2, Step::TakeOver),
            ("boot-2", 5, 3, 3, Step::Replace),
            ("boot-2", 60, 20, 2, Step::Wait),
            ("boot-2", 60, 36, 2, Step::TakeOver),
            ("boot-3", 5, 9, 2, Step::Wait),
            ("me", 5, 9, 2, Step::Wait),
        ] {
            let mut found = Found {
                silent: Duration::from_secs(silent),
                ..found(owner, "2")
            };
            if let Some(value) = &mut found.value {
                value.ttl = Duration::from_secs(ttl);
            }
            let claim = Claim {
                heir: Some("boot-2"),
                dead_epoch: dead,
                ..machine(None)
            };
            assert_eq!(decide(Some(&found), claim), expected, "{owner} {silent}");
        }
        // Held once: what has our mark under a smaller epoch than our last, such as 3, is of a backup.
        for (owner, last_epoch, expected) in [
            ("me", 4, Step::Replace),
            ("me", 3, Step::Wait),
            ("it", 4, Step::Wait),
            ("", 4, Step::Wait),
        ] {
            let claim = Claim {
                machine: false,
                past: Some(if owner.is_empty() { "" } else { "me" }),
                last_epoch,
                ..machine(None)
            };
            let found = found(owner, "boot-0");
            assert_eq!(
                decide(Some(&found), claim),
                expected,
                "{owner} {last_epoch}"
            );
        }
        let unmarked = found("", "boot-1");
        let step = decided(Some(&unmarked), Some(""), 0, 0);
        assert_eq!(step, Step::Wait, "no token in the key proves nothing");
        for (found, dead, expected) in [
            (own(ours.clone()), 0, Step::TakeOver),
            (own(unreadable.clone()), 0, Step::TakeOver),
            (own(ours.clone()), 3, Step::Replace),
        ] {
            assert_eq!(decided(Some(&found), None, 0, dead), expected, "{found:?}");
        }
    }
}
