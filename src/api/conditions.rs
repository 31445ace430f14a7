//! Setting a condition the way the API conventions want it: the time moves only with the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The summary of things that last: Cell, DesiredLRP.
pub const READY: &str = "Ready";

/// The summary of things that end: Task.
pub const SUCCEEDED: &str = "Succeeded";

/// What became of a Task's completion callback, once that is settled.
pub const CALLBACK_DELIVERED: &str = "CallbackDelivered";

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It can't be told (yet).
    Unknown,
}

impl Truth {
    /// The API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// Sets the condition `kind` in `conditions`. Returns whether anything changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let mut next = Condition {
        type_: kind.into(),
        status: truth.as_str().into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == kind)
    {
        Some(current) => {
            if current.status == next.status {
                next.last_transition_time = current.last_transition_time.clone();
            }
            let changed = *current != next;
            *current = next;
            changed
        }
        None => {
            conditions.push(next);
            true
        }
    }
}

/// The condition `kind`, if it was ever set.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        assert!(set(
            &mut conditions,
            READY,
            Truth::False,
            "Starting",
            "",
            None,
            at(1)
        ));
        assert!(!set(
            &mut conditions,
            READY,
            Truth::False,
            "Starting",
            "",
            None,
            at(2)
        ));
        assert!(set(
            &mut conditions,
            READY,
            Truth::False,
            "Waiting",
            "",
            None,
            at(3)
        ));
        assert_eq!(
            get(&conditions, READY).unwrap().last_transition_time,
            Time(at(1))
        );
        assert!(set(
            &mut conditions,
            READY,
            Truth::True,
            "Done",
            "",
            None,
            at(4)
        ));
        assert_eq!(
            get(&conditions, READY).unwrap().last_transition_time,
            Time(at(4))
        );
    }
}
