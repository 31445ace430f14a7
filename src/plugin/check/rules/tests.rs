//! Each rule on values: an installation that is well, and one fault at a time.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::core::Status;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

mod before;
mod controller;
mod programs;
mod work;

use super::judge;
use crate::api::{ActualLRPState, TaskState, crds};
use crate::client::CallError;
use crate::plugin::check::facts::{
    Asked, Crd, Facts, Monitors, Page, Programs, Scope, Scraped, Server, Words,
};
use crate::plugin::check::finding::{Finding, Mark};
use crate::plugin::failure::Failure;
use crate::plugin::fixtures::{cell, lrp, task};

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).expect("a time")
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/part-of": "diego",
        "app.kubernetes.io/instance": "diego",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
    })
}

fn meta(name: &str, component: &str) -> Value {
    json!({ "name": name, "namespace": "diego-system", "labels": labels(component) })
}

fn deployment(asked: i32, ready: i32) -> Deployment {
    object(json!({
        "metadata": meta("controller", "controller"),
        "spec": { "replicas": asked, "selector": {}, "template": {} },
        "status": { "readyReplicas": ready },
    }))
}

fn daemon_set(asked: i32, ready: i32) -> DaemonSet {
    object(json!({
        "metadata": meta("rep", "rep"),
        "spec": { "selector": {}, "template": {} },
        "status": { "desiredNumberScheduled": asked, "numberReady": ready, "currentNumberScheduled": asked, "numberMisscheduled": 0 },
    }))
}

/// A Lease that was renewed by the holder's clock at `said`, and by the API server's at `written`.
fn lease(namespace: &str, name: &str, said: i64, written: i64) -> Lease {
    object(json!({
        "metadata": {
            "name": name, "namespace": namespace,
            "managedFields": [
                { "manager": "a", "time": at(written), "fieldsV1": { "f:spec": { "f:renewTime": {} } } },
                { "manager": "b", "time": at(0), "fieldsV1": { "f:metadata": {} } },
            ],
        },
        "spec": { "holderIdentity": format!("{name}-holder"), "leaseDurationSeconds": 2, "renewTime": format!("{:.6}", at(said)) },
    }))
}

fn rep_pod(node: &str) -> Pod {
    object(json!({
        "metadata": meta(&format!("rep-{node}"), "rep"),
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    }))
}

fn node(name: &str) -> Node {
    object(json!({
        "metadata": { "name": name },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    }))
}

fn no_right() -> Failure {
    let mut status = Status::failure(
        r#"x is forbidden: User "eve" cannot list resource "xs" in API group "g" in the namespace "n""#,
        "",
    );
    status.code = 403;
    Failure::of_call(&CallError::Kube(kube::Error::Api(Box::new(status))), "here")
}

fn server() -> Server {
    Server {
        url: "https://here/".into(),
        version: "v1.36.3".into(),
        date: Some(at(0)),
        asked: at(0),
        answered: at(0),
    }
}

fn programs() -> Programs {
    Programs {
        deployments: Ok(vec![deployment(2, 2)]),
        daemon_sets: Ok(vec![daemon_set(2, 2)]),
        pods: Ok(vec![rep_pod("a"), rep_pod("b")]),
        scope: Scope::All,
        owner: Some(("diego".into(), "diego-system".into())),
    }
}

fn all_crds() -> Vec<Crd> {
    let all = crds::all().into_iter();
    all.map(|file| Crd {
        theirs: Ok(Some(file.crd.clone())),
        ours: file.crd,
    })
    .collect()
}

fn words() -> Words {
    Words {
        kubectl: " --context x".into(),
        helm: " --kube-context x".into(),
    }
}

fn well() -> Facts {
    let cells = ["a", "b"].map(|name| {
        let mut cell = cell(name, "z1", "True", "PresenceHeld");
        cell.spec.node_name = Some(name.into());
        cell
    });
    let page = "diego_presence_store_reachable 1\nleader_election_master_status{name=\"diego-controller\"} 1\n";
    Facts {
        words: words(),
        server: server(),
        rights: Ok(vec![Asked {
            purpose: "you can't look",
            verb: "list",
            resource: "cells".into(),
            allowed: true,
        }]),
        crds: all_crds(),
        programs: programs(),
        leaders: Ok(vec![lease("diego-system", "diego-controller", 0, 0)]),
        presences: Ok(vec![
            lease("diego-system", "cell-a", -1, -1),
            lease("diego-system", "cell-b", 0, 0),
        ]),
        nodes: Ok(vec![node("a"), node("b")]),
        node_leases: Ok(vec![lease("kube-node-lease", "a", -5, -5)]),
        pages: vec![Page {
            pod: "controller-1".into(),
            text: Ok(page.into()),
        }],
        cells: Ok(cells.into()),
        lrps: Ok(vec![lrp("web", 0, ActualLRPState::Running, Some("a"))]),
        tasks: Ok(vec![task("t", TaskState::Running, Some("a"))]),
        monitors: Ok(Monitors {
            operator: true,
            services: 1,
            pods: 1,
            rules: 1,
        }),
        scraped: Ok(Some(Scraped {
            service: "monitoring/prometheus-operated".into(),
            counts: Ok((2, 2)),
        })),
    }
}

/// Everything but what one change broke is well.
#[track_caller]
fn breaks(change: impl FnOnce(&mut Facts), check: &str, mark: Mark, words: &[&str]) -> Finding {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts);
    let found = findings
        .iter()
        .find(|one| one.check == check && one.result == mark);
    let found = found
        .unwrap_or_else(|| panic!("{check} is not {mark:?}: {findings:#?}"))
        .clone();
    let text = format!("{found:?}");
    for word in words {
        assert!(text.contains(word), "{word}: {found:#?}");
    }
    if mark != Mark::Ok {
        assert!(found.why.is_some() && found.remedy.is_some(), "{found:#?}");
        assert!(found.docs.is_some(), "{found:#?}");
    }
    found
}

#[test]
fn what_is_well_is_well() {
    for finding in judge(&well()) {
        assert_eq!(finding.result, Mark::Ok, "{finding:#?}");
    }
}
