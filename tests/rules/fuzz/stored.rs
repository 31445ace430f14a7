//! What a presence store holds: the values of keys, and the annotations of Leases.

use std::time::{Duration, Instant};

use diego_operator::presence::etcd::{cell_of, decode_value};
use diego_operator::presence::identity::Identity;
use diego_operator::presence::kubernetes::Sighting;
use diego_operator::presence::view::View;
use diego_operator::presence::{Presence, PresenceEvent};
use k8s_openapi::api::coordination::v1::Lease;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{bend, bounded, config};

fn value() -> Value {
    json!({
        "cellId": "a", "incarnation": "boot-1", "ttlSeconds": 5, "phase": "Held", "owner": "0af1", "holder": "99b2",
        "firstEpoch": 3, "epochBase": 50, "epoch": 57, "fence": false,
    })
}

fn values() -> Vec<Vec<u8>> {
    let small = json!({"cellId": "a", "incarnation": "i", "ttlSeconds": 0.5});
    [value(), small]
        .iter()
        .map(|value| value.to_string().into_bytes())
        .collect()
}

fn leases() -> Vec<Value> {
    let lease = json!({
        "metadata": {
            "name": "cell-a", "uid": "u", "resourceVersion": "57",
            "labels": {"diego.cloudfoundry.org/presence": "cell"},
            "annotations": {"diego.cloudfoundry.org/presence": value().to_string()},
        },
        "spec": {
            "holderIdentity": "99b2", "leaseDurationSeconds": 5, "leaseTransitions": 1,
            "acquireTime": "2026-11-23T12:00:00.000000Z", "renewTime": "2026-11-23T12:00:01.000000Z",
        },
    });
    vec![lease]
}

/// Whatever a store tells of one Cell, its neighbour stays what it was, and epochs are no nonsense.
fn is_followed(presence: Presence, revision: i64) {
    let at = Instant::now();
    let neighbour = Presence::created_at("b".into(), 1, None);
    let mut view = View::new();
    let mut told = view.relist(vec![neighbour.clone(), presence.clone()], revision, 7, at);
    told.extend(view.put(presence.clone(), revision.saturating_add(1), at));
    let gone = Some(presence.clone());
    told.extend(view.delete(&presence.cell, gone, revision.saturating_add(2), at));
    told.extend(view.put(presence.clone(), revision.saturating_add(3), at));
    told.extend(view.expire(&presence.cell, at));
    told.extend(view.relist(vec![neighbour], revision.saturating_add(4), 7, at));
    if presence.cell != "b" {
        assert!(view.get("b").is_some());
        for event in told {
            assert!(
                !matches!(&event, PresenceEvent::Gone(gone) if gone.last.cell == "b"),
                "{event:?}"
            );
        }
    }
    assert!(presence.epoch > 0, "{presence:?}");
    assert!(presence.first_epoch() <= presence.epoch, "{presence:?}");
    assert!(
        presence.ttl().unwrap_or_default() <= Duration::from_secs(3600),
        "{presence:?}"
    );
    let _ = (presence.phase(), presence.epoch_base());
}

fn is_sighted(lease: &Lease) {
    let Some(sighting) = Sighting::of(lease) else {
        return;
    };
    let _ = sighting.last_count();
    assert!(sighting.ttl() >= Duration::from_millis(300));
    if let Some(presence) = sighting.presence(1) {
        is_followed(presence, sighting.version.max(1));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn values_of_keys(bytes in bend::bytes(values()), revision in 1..i64::MAX) {
        bounded(|| {
            let value = decode_value(&bytes);
            if let Some(value) = &value {
                let again = serde_json::to_vec(value).expect("it has a JSON form");
                assert_eq!(decode_value(&again).as_ref(), Some(value));
            }
            is_followed(Presence::created_at("a".into(), revision, value), revision);
        });
    }

    #[test]
    fn trees_in_values_of_keys(tree in bend::tree(vec![value()]), revision in 1..i64::MAX) {
        bounded(|| {
            let value = decode_value(tree.to_string().as_bytes());
            is_followed(Presence::created_at("a".into(), revision, value), revision);
        });
    }

    #[test]
    fn names_of_keys(key in bend::bytes(vec![diego_operator::presence::etcd::key("a").into_bytes()])) {
        bounded(|| {
            if let Some(cell) = cell_of(&key) {
                assert_eq!(diego_operator::presence::etcd::key(cell).as_bytes(), key);
            }
        });
    }

    #[test]
    fn annotations_of_leases(bytes in bend::bytes(values()), version in bend::text(&["57", "1"])) {
        bounded(|| {
            let mut lease = leases().remove(0);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            lease["metadata"]["annotations"]["diego.cloudfoundry.org/presence"] = text.into();
            lease["metadata"]["resourceVersion"] = version.into();
            is_sighted(&serde_json::from_value(lease).expect("a Lease"));
        });
    }

    #[test]
    fn leases_as_a_whole(tree in bend::tree(leases())) {
        bounded(|| {
            if let Ok(lease) = serde_json::from_value::<Lease>(tree) {
                is_sighted(&lease);
            }
        });
    }

    #[test]
    fn identities_on_disk(bytes in bend::bytes(vec![
        br#"{"cellId":"a","incarnation":"i","owner":"0af1","leaseId":7}"#.to_vec(),
    ])) {
        bounded(|| {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("identity.json"), &bytes).expect("written");
            if let Some(identity) = Identity::load(dir.path()) {
                assert!(!identity.owner.is_empty());
            }
        });
    }
}
