//! Each rule on values: an installation that is well, and one fault at a time.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::core::Status;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::judge;
use crate::api::{ActualLRPState, SuspectInstance, TaskState, crds};
use crate::client::CallError;
use crate::plugin::check::facts::{
    Asked, Before, Crd, Facts, Monitors, Page, Programs, Scope, Scraped, Server, Words,
};
use crate::plugin::check::finding::{Finding, Mark};
use crate::plugin::check::rules::before;
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

#[test]
fn the_server_and_the_kinds() {
    breaks(
        |facts| facts.server.version = "v1.31.9".into(),
        "version",
        Mark::Failure,
        &["1.32 is the oldest"],
    );
    breaks(
        |facts| facts.server.version = "odd".into(),
        "version",
        Mark::Warning,
        &["'odd'"],
    );
    breaks(
        |facts| facts.rights.as_mut().unwrap()[0].allowed = false,
        "rights",
        Mark::Warning,
        &[
            "you can't look",
            "you may not list cells",
            "kubectl --context x auth can-i --list",
        ],
    );
    breaks(
        |facts| facts.crds[1].theirs = Ok(None),
        "crds",
        Mark::Failure,
        &["desiredlrps.diego.cloudfoundry.org", "apply --server-side"],
    );
    breaks(
        |facts| facts.crds[0].theirs = Err(no_right()),
        "crds",
        Mark::Warning,
        &[
            "eve lacks the right to list xs.g in namespace n",
            "ask an administrator",
        ],
    );
    let shrunk = |crd: &crate::api::crds::CrdFile| {
        let mut value = serde_json::to_value(&crd.crd).expect("JSON");
        let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["status"]["properties"]
            .as_object_mut()
            .expect("a status")
            .remove("conditions");
        object(value)
    };
    let older = |facts: &mut Facts| facts.crds[0].theirs = Ok(Some(shrunk(&crds::all()[0])));
    breaks(
        older,
        "crds",
        Mark::Failure,
        &["is older", "lacks status.conditions"],
    );
    let newer = |facts: &mut Facts| facts.crds[0].ours = shrunk(&crds::all()[0]);
    breaks(
        newer,
        "crds",
        Mark::Warning,
        &["is newer", "has status.conditions"],
    );
}

#[test]
fn the_controllers() {
    let with = |asked, ready| {
        move |facts: &mut Facts| facts.programs.deployments = Ok(vec![deployment(asked, ready)])
    };
    breaks(
        with(0, 0),
        "deployment",
        Mark::Failure,
        &["scaled to 0", "--replicas 2"],
    );
    breaks(
        with(2, 0),
        "deployment",
        Mark::Failure,
        &["0 of 2", "kubectl --context x logs"],
    );
    breaks(with(2, 1), "deployment", Mark::Warning, &["1 of 2"]);
    breaks(
        with(1, 1),
        "deployment",
        Mark::Warning,
        &["there is one controller"],
    );
    let pulls = |facts: &mut Facts| {
        facts.programs.deployments = Ok(vec![deployment(2, 0)]);
        let pod = json!({
            "metadata": meta("c-1", "controller"),
            "status": { "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ImagePullBackOff" } } }] },
        });
        facts.programs.pods = Ok(vec![object(pod)]);
    };
    breaks(
        pulls,
        "deployment",
        Mark::Failure,
        &["c-1: ImagePullBackOff"],
    );
    let old = |facts: &mut Facts| {
        let deployments = facts.programs.deployments.as_mut().unwrap();
        let labels = deployments[0].metadata.labels.as_mut().unwrap();
        labels.insert("app.kubernetes.io/version".into(), "0.0.7".into());
    };
    breaks(old, "plugin-version", Mark::Warning, &["version 0.0.7"]);
    let two = |facts: &mut Facts| {
        let mut other = deployment(2, 2);
        other.metadata.namespace = Some("other".into());
        facts.programs.deployments.as_mut().unwrap().push(other);
    };
    breaks(
        two,
        "releases",
        Mark::Failure,
        &[
            "2 releases",
            "helm --kube-context x uninstall diego --namespace other",
        ],
    );
}

#[test]
fn one_leads() {
    let with = |leases: Vec<Lease>| move |facts: &mut Facts| facts.leaders = Ok(leases);
    breaks(
        with(vec![]),
        "leader",
        Mark::Failure,
        &[
            "there is no Lease",
            "logs --namespace diego-system deployment/controller",
        ],
    );
    let stale = lease("diego-system", "diego-controller", -40, -40);
    breaks(
        with(vec![stale]),
        "leader",
        Mark::Failure,
        &["diego-controller-holder, which led, renewed", "40s ago"],
    );
    // One that another installation left says nothing of this one.
    let left = lease("other", "diego-controller", -90, -90);
    breaks(
        with(vec![left]),
        "leader",
        Mark::Failure,
        &["there is no Lease"],
    );
    let mut given = lease("diego-system", "diego-controller", -3, -3);
    given.spec.as_mut().unwrap().holder_identity = Some(String::new());
    breaks(
        with(vec![given]),
        "leader",
        Mark::Failure,
        &["was given up 3s ago"],
    );
    let two = vec![
        lease("a", "diego-controller", 0, 0),
        lease("b", "diego-controller", -1, -1),
    ];
    breaks(
        with(two),
        "leader",
        Mark::Failure,
        &["2 controllers lead", "in namespace a", "in namespace b"],
    );
    // Only the API server's clock counts.
    let ahead = lease("a", "diego-controller", -3600, 0);
    breaks(with(vec![ahead]), "leader", Mark::Ok, &[]);
    let behind = lease("a", "diego-controller", 3600, -60);
    breaks(with(vec![behind]), "leader", Mark::Failure, &["60s ago"]);
}

#[test]
fn the_reps() {
    let with = |asked, ready| {
        move |facts: &mut Facts| facts.programs.daemon_sets = Ok(vec![daemon_set(asked, ready)])
    };
    breaks(
        with(0, 0),
        "daemon-set",
        Mark::Failure,
        &["no Node takes a rep"],
    );
    breaks(with(3, 0), "daemon-set", Mark::Failure, &["0 of 3"]);
    breaks(with(3, 2), "daemon-set", Mark::Warning, &["2 of 3"]);
    breaks(
        |facts| facts.programs.pods.as_mut().unwrap().push(rep_pod("c")),
        "nodes",
        Mark::Failure,
        &["no Cells: c"],
    );
    breaks(
        |facts| drop(facts.nodes.as_mut().unwrap().pop()),
        "nodes",
        Mark::Warning,
        &["Node is gone: b"],
    );
}

#[test]
fn the_presence_store() {
    let page = |text: &str| {
        vec![Page {
            pod: "controller-1".into(),
            text: Ok(text.into()),
        }]
    };
    let away = page("diego_presence_store_reachable 0\n");
    breaks(
        |facts| facts.pages = away,
        "presence-store",
        Mark::Failure,
        &[
            "can't be reached: controller-1",
            "DiegoPresenceStoreUnreachable",
        ],
    );
    // A standby may hear what the leader does not.
    let mut both =
        page("diego_presence_store_reachable 1\nleader_election_master_status{name=\"x\"} 0\n");
    both.extend(page(
        "diego_presence_store_reachable 0\nleader_election_master_status{name=\"x\"} 1\n",
    ));
    breaks(
        |facts| facts.pages = both,
        "presence-store",
        Mark::Failure,
        &[],
    );
    breaks(
        |facts| facts.pages.clear(),
        "presence-store",
        Mark::Warning,
        &["is not known"],
    );
    breaks(
        |facts| facts.pages[0].text = Err(no_right()),
        "presence-store",
        Mark::Warning,
        &["eve lacks the right", "diego_presence_store_reachable"],
    );
    let refused = Failure::Refused("401 no token".into());
    breaks(
        |facts| facts.pages[0].text = Err(refused),
        "presence-store",
        Mark::Warning,
        &["401 no token"],
    );
    let late = |facts: &mut Facts| {
        facts.presences.as_mut().unwrap()[0] = lease("diego-system", "cell-a", -30, -30)
    };
    breaks(
        late,
        "presences",
        Mark::Failure,
        &["do not renew their Lease: a"],
    );
}

#[test]
fn the_clocks() {
    let here = |seconds| {
        move |facts: &mut Facts| {
            (facts.server.asked, facts.server.answered) = (at(seconds), at(seconds))
        }
    };
    breaks(here(3), "local-clock", Mark::Ok, &[]);
    breaks(here(90), "local-clock", Mark::Warning, &["89s ahead"]);
    breaks(here(-7200), "local-clock", Mark::Warning, &["2h behind"]);
    let node = |said, written| {
        move |facts: &mut Facts| {
            facts.node_leases = Ok(vec![lease("kube-node-lease", "a", said, written)])
        }
    };
    breaks(node(-300, -300), "clocks", Mark::Ok, &[]);
    breaks(
        node(-2, -10),
        "clocks",
        Mark::Warning,
        &["Node a is 7s ahead"],
    );
    breaks(
        node(-100, -10),
        "clocks",
        Mark::Failure,
        &["Node a is 90s behind"],
    );
    // What was renewed long ago says nothing of now.
    breaks(node(0, -10_000), "clocks", Mark::Ok, &[]);
    breaks(
        |facts| facts.node_leases = Err(no_right()),
        "clocks",
        Mark::Warning,
        &["eve lacks"],
    );
}

#[test]
fn the_cells() {
    breaks(
        |facts| facts.cells = Ok(vec![]),
        "cells",
        Mark::Failure,
        &["no Cells"],
    );
    let become_ = |reason: &'static str, ready: &'static str| {
        move |facts: &mut Facts| {
            let mut other = cell("b", "z1", ready, reason);
            other.spec.node_name = Some("b".into());
            facts.cells.as_mut().unwrap()[1] = other;
        }
    };
    breaks(
        become_("PresenceExpired", "False"),
        "missing",
        Mark::Warning,
        &[
            "1 Cell is lost: b",
            "kubectl diego --context x trace cell/b",
        ],
    );
    breaks(
        become_("MassLossHeld", "False"),
        "guard",
        Mark::Failure,
        &["annotate cell.diego.cloudfoundry.org b diego.cloudfoundry.org/confirm-loss=true"],
    );
    breaks(
        become_("NodeNotReady", "False"),
        "not-ready",
        Mark::Warning,
        &["1 Cell is NodeNotReady: b"],
    );
    breaks(
        become_("NodeNotReady", "False"),
        "headroom",
        Mark::Warning,
        &["one Cell alone"],
    );
    breaks(
        become_("PresenceUnknown", "Unknown"),
        "not-ready",
        Mark::Warning,
        &["has not registered"],
    );
    breaks(
        become_("Unschedulable", "True"),
        "cells",
        Mark::Ok,
        &["1 of them cordoned"],
    );
    let none = |facts: &mut Facts| {
        become_("PresenceExpired", "False")(facts);
        facts.cells.as_mut().unwrap().remove(0);
    };
    breaks(none, "cells", Mark::Failure, &["none of 1 Cell is Ready"]);
    let flaps = |facts: &mut Facts| {
        become_("HeldDown", "False")(facts);
        let status = facts.cells.as_mut().unwrap()[1].status.as_mut().unwrap();
        status.flaps = Some(3);
        status.held_down_until = Some(MicroTime(at(45)));
    };
    breaks(
        flaps,
        "flapping",
        Mark::Warning,
        &["b (lost 3 times, no new work for 45s)"],
    );
    let full = |facts: &mut Facts| {
        for cell in facts.cells.as_mut().unwrap() {
            cell.status
                .as_mut()
                .unwrap()
                .allocated
                .as_mut()
                .unwrap()
                .memory = "3Gi".into();
        }
    };
    breaks(
        full,
        "headroom",
        Mark::Warning,
        &["not enough memory", "kubectl diego --context x top"],
    );
}

#[test]
fn the_work() {
    let waits = |number: i32| {
        move |facts: &mut Facts| {
            facts.lrps = Ok((0..number)
                .map(|index| {
                    let mut one = lrp("web", index, ActualLRPState::Unclaimed, None);
                    one.status.as_mut().unwrap().placement_error =
                        Some("insufficient resources: memory".into());
                    one
                })
                .collect());
        }
    };
    breaks(
        waits(4),
        "placement",
        Mark::Warning,
        &[
            "insufficient resources: memory (default/web-0, default/web-1, default/web-2 and 1 more)",
        ],
    );
    breaks(
        waits(5),
        "placement",
        Mark::Failure,
        &[
            "5 instances without a place",
            "trace actuallrp/web-0 -n default",
        ],
    );
    let old = |age: i64| {
        move |facts: &mut Facts| {
            let mut one = lrp("web", 0, ActualLRPState::Unclaimed, None);
            one.status.as_mut().unwrap().state_transition_time = Some(MicroTime(at(-age)));
            facts.lrps = Ok(vec![one]);
        }
    };
    breaks(old(30), "instances", Mark::Ok, &[]);
    breaks(old(90), "placement", Mark::Warning, &["nobody has looked"]);
    let crash = |facts: &mut Facts| {
        let mut one = lrp("web", 0, ActualLRPState::Crashed, None);
        let status = one.status.as_mut().unwrap();
        (status.crash_count, status.crash_reason) = (Some(4), Some("exit status 7".into()));
        facts.lrps = Ok(vec![one]);
    };
    breaks(
        crash,
        "crashes",
        Mark::Warning,
        &["default/web (crashed 4 times in a row)", "exit status 7"],
    );
    let suspect = |facts: &mut Facts| {
        let mut one = lrp("web", 0, ActualLRPState::Claimed, Some("a"));
        one.status.as_mut().unwrap().suspect = Some(SuspectInstance {
            cell_name: "b".into(),
            since: Some(MicroTime(at(-100))),
            ..SuspectInstance::default()
        });
        facts.lrps = Ok(vec![one]);
    };
    breaks(suspect, "suspects", Mark::Warning, &["default/web-0 on b"]);
    let pending = |facts: &mut Facts| {
        let mut one = task("t", TaskState::Pending, None);
        one.status.as_mut().unwrap().state_transition_time = Some(MicroTime(at(-100)));
        facts.tasks = Ok(vec![one]);
    };
    breaks(
        pending,
        "tasks",
        Mark::Warning,
        &["1 Task waits", "default/t", "trace task/t -n default"],
    );
}

#[test]
fn the_monitoring() {
    let none = |operator| {
        move |facts: &mut Facts| {
            facts.monitors = Ok(Monitors {
                operator,
                ..Monitors::default()
            })
        }
    };
    breaks(
        none(true),
        "monitors",
        Mark::Warning,
        &[
            "not scraped",
            "helm --kube-context x upgrade diego charts/diego-operator --namespace diego-system",
            "serviceMonitor.enabled=true",
        ],
    );
    breaks(
        none(false),
        "monitors",
        Mark::Warning,
        &["monitoring.podAnnotations=true"],
    );
    breaks(
        |facts| facts.monitors.as_mut().unwrap().pods = 0,
        "monitors",
        Mark::Warning,
        &["metrics of the reps"],
    );
    breaks(
        |facts| facts.monitors.as_mut().unwrap().rules = 0,
        "alerts",
        Mark::Warning,
        &["prometheusRule.enabled=true"],
    );
    let counts = |counts| {
        move |facts: &mut Facts| facts.scraped.as_mut().unwrap().as_mut().unwrap().counts = counts
    };
    breaks(
        counts(Ok((0, 0))),
        "scrapes",
        Mark::Failure,
        &["neither controllers nor reps"],
    );
    breaks(counts(Ok((2, 0))), "scrapes", Mark::Failure, &["no rep"]);
    breaks(
        counts(Err(no_right())),
        "scrapes",
        Mark::Warning,
        &["eve lacks"],
    );
    let annotated = |facts: &mut Facts| {
        none(false)(facts);
        let template = json!({ "metadata": { "annotations": { "prometheus.io/scrape": "true" } } });
        let deployments = facts.programs.deployments.as_mut().unwrap();
        deployments[0].spec.as_mut().unwrap().template = object(template);
    };
    breaks(annotated, "monitors", Mark::Ok, &["annotations"]);
}

#[test]
fn without_the_kinds_nothing_more_is_said() {
    let mut facts = well();
    facts.crds.iter_mut().for_each(|crd| crd.theirs = Ok(None));
    let findings = judge(&facts);
    let last = findings.last().expect("it says so");
    assert_eq!(
        (last.check, last.result, findings.len()),
        ("crds", Mark::Failure, 3)
    );
}

fn fresh() -> Before {
    let none = Programs {
        deployments: Ok(vec![]),
        daemon_sets: Ok(vec![]),
        pods: Ok(vec![]),
        owner: None,
        ..programs()
    };
    let mut crds = all_crds();
    crds.iter_mut().for_each(|crd| crd.theirs = Ok(None));
    Before {
        words: words(),
        server: server(),
        rights: Ok(vec![]),
        groups: vec![("a/v1", Ok(true))],
        crds,
        programs: none,
        nodes: Ok(vec![node("a"), node("b")]),
    }
}

#[test]
fn before_an_installation() {
    for finding in before(&fresh()) {
        assert_eq!(finding.result, Mark::Ok, "{finding:#?}");
    }
    let breaks = |change: &dyn Fn(&mut Before), check: &str, mark: Mark, word: &str| {
        let mut facts = fresh();
        change(&mut facts);
        let findings = before(&facts);
        let found = findings
            .iter()
            .find(|one| one.check == check && one.result == mark);
        let found = found.unwrap_or_else(|| panic!("{check}: {findings:#?}"));
        assert!(format!("{found:?}").contains(word), "{word}: {found:#?}");
    };
    breaks(
        &|facts| facts.groups[0].1 = Ok(false),
        "features",
        Mark::Failure,
        "does not serve a/v1",
    );
    breaks(
        &|facts| facts.nodes = Ok(vec![node("a")]),
        "nodes",
        Mark::Warning,
        "one Node",
    );
    breaks(
        &|facts| facts.nodes = Ok(vec![node(&"n".repeat(64))]),
        "nodes",
        Mark::Warning,
        "more than 63",
    );
    breaks(
        &|facts| facts.programs = programs(),
        "releases",
        Mark::Failure,
        "release diego in namespace diego-system",
    );
    let lacks = Asked {
        purpose: "",
        verb: "create",
        resource: "clusterroles".into(),
        allowed: false,
    };
    breaks(
        &|facts| facts.rights = Ok(vec![lacks.clone()]),
        "rights",
        Mark::Failure,
        "auth can-i create clusterroles",
    );
    let kept = |facts: &mut Before| {
        facts.crds = all_crds();
        let crd = facts.crds[0].theirs.as_mut().unwrap().as_mut().unwrap();
        crd.metadata.annotations = Some(
            [
                ("meta.helm.sh/release-name".into(), "old".into()),
                ("meta.helm.sh/release-namespace".into(), "ns".into()),
            ]
            .into(),
        );
    };
    breaks(&kept, "crds-owner", Mark::Ok, "release old in namespace ns");
}

#[test]
fn a_certificate_that_is_out_of_time_may_mean_this_machines_clock() {
    let of = |problem: &str| {
        super::unreachable(&Failure::Unreachable {
            server: "https://here/".into(),
            problem: problem.into(),
        })
    };
    assert!(
        of("invalid peer certificate: certificate not valid yet")
            .remedy
            .is_some()
    );
    assert!(of("connection refused").remedy.is_none());
}
