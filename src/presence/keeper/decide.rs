//! What to do about a key that is already there: a function of what was found, and of who we are.

use super::super::PresenceValue;

/// The Cell's key as it was found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its value, where it can be read.
    pub value: Option<PresenceValue>,
    /// The lease that holds it; 0 for none.
    pub lease: i64,
    /// The store's revision at which it was created.
    pub created: i64,
    /// Its last change: what a compare-and-swap is bound to.
    pub mod_revision: i64,
}

impl Found {
    /// What its epoch is counted on from.
    pub fn base(&self) -> i64 {
        self.value.as_ref().map_or(0, |value| value.epoch_base)
    }

    /// Its epoch.
    pub fn epoch(&self) -> i64 {
        self.base().saturating_add(self.created)
    }
}

/// What the epoch of a registration is counted on from, so that it is greater than `last`, the greatest epoch that is
/// known of the Cell. `base` is what the Cell's epochs were counted on from so far, `revision` the store's, which the
/// registration comes after.
pub(super) fn epoch_base(base: i64, last: i64, revision: i64) -> i64 {
    if base.saturating_add(revision) >= last {
        base
    } else {
        last
    }
}

/// Who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    /// The incarnation to register.
    pub incarnation: &'a str,
    /// Our token, while it proves that a former life of this rep wrote the key. It does so only for the first
    /// registration: once we hold the key ourselves, whoever takes it away with the same token is a copy of our work
    /// directory, and two that take the key from each other in turns would be worse than one that gives up.
    pub proof: Option<&'a str>,
    /// Leases that this very keeper was granted.
    pub leases: &'a [i64],
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody holds it: create it.
    Create,
    /// It is ours: put it under our new lease; the epoch goes on.
    TakeOver,
    /// It is our former life's, whose containers are gone: mark it as restarting, end it, and create it anew.
    Replace,
    /// It is another's: wait until it is gone.
    Wait,
}

/// The rule.
pub(super) fn decide(found: Option<&Found>, claim: Claim<'_>) -> Step {
    let Some(found) = found else {
        return Step::Create;
    };
    // A try of ours that was carried out, though its answer got lost.
    if claim.leases.contains(&found.lease) {
        return Step::TakeOver;
    }
    match (&found.value, claim.proof) {
        (Some(value), Some(owner)) if !owner.is_empty() && value.owner == owner => {
            if value.incarnation == claim.incarnation {
                Step::TakeOver
            } else {
                Step::Replace
            }
        }
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::PresencePhase;
    use super::*;

    fn found(owner: &str, incarnation: &str, lease: i64) -> Found {
        let value = PresenceValue {
            cell_id: "a".into(),
            incarnation: incarnation.into(),
            ttl_seconds: 5,
            phase: PresencePhase::Held,
            owner: owner.into(),
            first_epoch: None,
            epoch_base: 0,
        };
        Found {
            value: Some(value),
            lease,
            created: 3,
            mod_revision: 4,
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

    #[test]
    fn every_case_of_a_key_that_is_there() {
        let unreadable = Found {
            value: None,
            ..found("", "", 9)
        };
        let proof = Some("me");
        let table = [
            ("no key", None, proof, Step::Create),
            ("no key, no proof", None, None, Step::Create),
            (
                "our former life goes on",
                Some(found("me", "boot-1", 9)),
                proof,
                Step::TakeOver,
            ),
            (
                "our former life has ended",
                Some(found("me", "boot-0", 9)),
                proof,
                Step::Replace,
            ),
            (
                "another rep",
                Some(found("it", "boot-1", 9)),
                proof,
                Step::Wait,
            ),
            (
                "no token in the key proves nothing",
                Some(found("", "boot-1", 9)),
                Some(""),
                Step::Wait,
            ),
            (
                "ours, but we can't prove it",
                Some(found("me", "boot-1", 9)),
                None,
                Step::Wait,
            ),
            (
                "a value that can't be read",
                Some(unreadable.clone()),
                proof,
                Step::Wait,
            ),
            (
                "our own lease",
                Some(found("me", "boot-1", 1)),
                None,
                Step::TakeOver,
            ),
            (
                "our own lease, unreadable",
                Some(Found {
                    lease: 2,
                    ..unreadable
                }),
                None,
                Step::TakeOver,
            ),
        ];
        for (name, found, proof, expected) in table {
            let claim = Claim {
                incarnation: "boot-1",
                proof,
                leases: &[1, 2],
            };
            assert_eq!(decide(found.as_ref(), claim), expected, "{name}");
        }
    }
}
