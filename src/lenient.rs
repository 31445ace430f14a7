//! Objects that may be unreadable: written under looser or later CRDs than this program knows. One of them must not keep all
//! the others from being read.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A `K`, or what is known of an object that is none. As kube's `DeserializeGuard`, which goes by way of a tree of values and
/// a copy of it; this goes by way of the text, since hundreds of thousands are listed.
#[derive(Debug, Clone)]
pub enum Lenient<K> {
    /// It could be read.
    Read(Box<K>),
    /// It could not.
    Unreadable {
        /// Its metadata.
        meta: Box<ObjectMeta>,
        /// Why not.
        problem: String,
    },
}

impl<K> Lenient<K> {
    /// The object, if it could be read.
    pub fn read(self) -> Option<K> {
        match self {
            Lenient::Read(object) => Some(*object),
            Lenient::Unreadable { .. } => None,
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct OnlyMeta {
            metadata: ObjectMeta,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str::<K>(text.get()) {
            Ok(object) => Ok(Lenient::Read(Box::new(object))),
            Err(problem) => {
                let only: OnlyMeta =
                    serde_json::from_str(text.get()).map_err(|_| D::Error::custom(&problem))?;
                Ok(Lenient::Unreadable {
                    meta: Box::new(only.metadata),
                    problem: problem.to_string(),
                })
            }
        }
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Lenient::Read(object) => object.meta(),
            Lenient::Unreadable { meta, .. } => meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Lenient::Read(object) => object.meta_mut(),
            Lenient::Unreadable { meta, .. } => meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};

    use super::*;
    use crate::api::ActualLRP;

    fn object(name: &str, state: &str) -> String {
        format!(
            r#"{{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
                "metadata": {{"name": "{name}", "namespace": "default"}},
                "spec": {{"desiredLRPName": "web", "index": 0}}, "status": {{"state": "{state}"}}}}"#
        )
    }

    fn seen(object: &Lenient<ActualLRP>) -> (&str, bool) {
        let read = matches!(object, Lenient::Read(_));
        (object.meta().name.as_deref().unwrap_or_default(), read)
    }

    #[test]
    fn one_that_can_not_be_read_does_not_keep_the_list_from_being_read() {
        let (good, bad) = (object("good", "Running"), object("bad", "Levitating"));
        let text = format!(
            r#"{{"kind": "ActualLRPList", "apiVersion": "diego.cloudfoundry.org/v1alpha1", "metadata": {{"resourceVersion": "7"}},
                "items": [{bad}, {good}]}}"#
        );
        assert!(serde_json::from_str::<ObjectList<ActualLRP>>(&text).is_err());
        let list: ObjectList<Lenient<ActualLRP>> = serde_json::from_str(&text).expect("a list");
        let all: Vec<_> = list.items.iter().map(seen).collect();
        assert_eq!(all, [("bad", false), ("good", true)]);
        let Lenient::Unreadable { problem, .. } = &list.items[0] else {
            unreachable!("it is none");
        };
        assert!(problem.contains("Levitating"), "{problem}");
    }

    #[test]
    fn nor_a_watch() {
        for (state, read) in [("Running", true), ("Levitating", false)] {
            let line = format!(
                r#"{{"type": "MODIFIED", "object": {}}}"#,
                object("x", state)
            );
            let event: WatchEvent<Lenient<ActualLRP>> =
                serde_json::from_str(&line).expect("an event");
            let WatchEvent::Modified(object) = event else {
                unreachable!("it is that type");
            };
            assert_eq!(seen(&object), ("x", read));
        }
    }
}
