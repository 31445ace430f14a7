//! The objects of one kind as a watch tells of them.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// The objects of one kind as a watch tells of them.
pub struct Mirror<K> {
    /// What there is.
    pub shown: BTreeMap<(Option<String>, String), K>,
    /// What a new list has brought so far; it counts when it is whole.
    coming: BTreeMap<(Option<String>, String), K>,
    /// Whether a list was whole once.
    pub listed: bool,
}

impl<K: Resource> Mirror<K> {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Mirror {
            shown: BTreeMap::new(),
            coming: BTreeMap::new(),
            listed: false,
        }
    }

    /// Whether there is something new to draw.
    pub fn apply(&mut self, event: Event<K>) -> bool {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Event::Init => {
                self.coming.clear();
                return false;
            }
            Event::InitApply(object) => {
                self.coming.insert(key(&object), object);
                return false;
            }
            Event::InitDone => {
                self.shown = std::mem::take(&mut self.coming);
                self.listed = true;
            }
            Event::Apply(object) => {
                self.shown.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.shown.remove(&key(&object));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Cell;
    use crate::plugin::fixtures::cell;

    #[test]
    fn a_new_list_counts_when_it_is_whole() {
        let names = |mirror: &Mirror<Cell>| {
            mirror
                .shown
                .values()
                .map(Cell::name_any)
                .collect::<Vec<_>>()
        };
        let mut mirror = Mirror::new();
        let [a, b] = ["a", "b"].map(|name| cell(name, "z1", "True", "PresenceHeld"));
        assert!(!mirror.apply(Event::Init));
        assert!(!mirror.apply(Event::InitApply(a.clone())));
        assert!(mirror.apply(Event::InitDone));
        assert!(mirror.apply(Event::Apply(b.clone())));
        assert_eq!(names(&mirror), ["a", "b"]);
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(b));
        assert_eq!(names(&mirror), ["a", "b"], "the old one is shown meanwhile");
        mirror.apply(Event::InitDone);
        assert_eq!(names(&mirror), ["b"]);
        mirror.apply(Event::Apply(a.clone()));
        mirror.apply(Event::Delete(a));
        assert_eq!(names(&mirror), ["b"]);
    }
}
