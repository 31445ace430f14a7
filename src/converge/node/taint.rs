//! The taint on a lost Cell's Node: whether it should be there, and the patch that makes it so.
//!
//! Every patch holds on to what it was decided on, so that nobody else's taint is lost: it is refused when the taints
//! are others by then, and decided anew.

use serde_json::{Value, json};

use super::{CELL_MISSING_TAINT, Taint, TaintEffect};

/// What is to be done to a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its Cell is lost, and it has no taint.
    Add,
    /// Its Cell is not lost, and it has the taint.
    Remove,
}

/// The rule.
pub fn decide(lost: bool, tainted: bool) -> Option<Step> {
    match (lost, tainted) {
        (true, false) => Some(Step::Add),
        (false, true) => Some(Step::Remove),
        (true, true) | (false, false) => None,
    }
}

/// How many Nodes may be tainted at once, of so many that Cells are: one, or a third. Where more Cells seem lost it is
/// more likely that the judge is wrong, and with the taint every Pod of these nodes would have to go.
pub fn limit(nodes: usize) -> usize {
    (nodes / 3).max(1)
}

/// Whether a Node with these taints has ours.
pub fn is_tainted(taints: &[Value]) -> bool {
    position(taints).is_some()
}

fn position(taints: &[Value]) -> Option<usize> {
    let text = |taint: &Value, field: &str| taint[field].as_str().unwrap_or_default().to_owned();
    taints.iter().position(|taint| {
        let effect = TaintEffect::of(&text(taint, "effect"));
        effect.is_some_and(|effect| {
            let (key, value) = (text(taint, "key"), text(taint, "value"));
            Taint { key, value, effect }.is_ours()
        })
    })
}

/// The JSON patch of a Node that has the resourceVersion `version` and these taints; `None` when there is nothing to
/// change.
pub fn patch(step: Step, version: &str, taints: &[Value]) -> Option<Value> {
    let ours = json!({ "key": CELL_MISSING_TAINT, "effect": "NoExecute" });
    let same = json!({ "op": "test", "path": "/spec/taints", "value": taints });
    match (step, position(taints)) {
        (Step::Add, Some(_)) | (Step::Remove, None) => None,
        // A list that is not there can't be tested.
        (Step::Add, None) if taints.is_empty() => Some(json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": version },
            { "op": "add", "path": "/spec/taints", "value": [ours] },
        ])),
        (Step::Add, None) => Some(json!([
            same,
            { "op": "add", "path": "/spec/taints/-", "value": ours },
        ])),
        (Step::Remove, Some(index)) => Some(json!([
            same,
            { "op": "remove", "path": format!("/spec/taints/{index}") },
        ])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        assert_eq!(decide(true, false), Some(Step::Add));
        assert_eq!(decide(false, true), Some(Step::Remove));
        assert_eq!((decide(true, true), decide(false, false)), (None, None));
    }

    #[test]
    fn one_may_be_tainted_and_at_most_a_third_of_all() {
        let expected = [(1, 1), (2, 1), (5, 1), (6, 2), (8, 2), (9, 3), (1000, 333)];
        for (nodes, tainted) in expected {
            assert_eq!(limit(nodes), tainted, "{nodes} nodes");
        }
    }

    #[test]
    fn a_patch_holds_on_to_what_it_was_decided_on() {
        let other = json!({"key": "a", "effect": "NoSchedule"});
        let ours = json!({"key": CELL_MISSING_TAINT, "effect": "NoExecute"});
        let first = patch(Step::Add, "7", &[]).unwrap();
        assert_eq!(first[0]["value"], "7");
        assert_eq!(first[1]["value"], json!([ours]));
        let beside = patch(Step::Add, "7", std::slice::from_ref(&other)).unwrap();
        assert_eq!(beside[0]["value"], json!([other]));
        assert_eq!(beside[1]["path"], "/spec/taints/-");
        let both = [other.clone(), ours.clone()];
        assert_eq!(patch(Step::Add, "7", &both), None);
        let removed = patch(Step::Remove, "7", &both).unwrap();
        assert_eq!(removed[0]["value"], json!(both));
        assert_eq!(removed[1]["path"], "/spec/taints/1");
        assert_eq!(patch(Step::Remove, "7", &[other]), None);
    }

    #[test]
    fn only_our_key_with_our_effect_is_ours() {
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
        assert!(is_tainted(&[taint(CELL_MISSING_TAINT, "NoExecute")]));
        assert!(!is_tainted(&[taint(CELL_MISSING_TAINT, "NoSchedule")]));
        assert!(!is_tainted(&[taint("other", "NoExecute")]));
    }
}
