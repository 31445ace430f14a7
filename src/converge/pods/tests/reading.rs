//! What a Pod says: every way that a kubelet tells of an end, or of what keeps it from a beginning.

use serde_json::{Value, json};

use super::super::{End, PodRecord, Rejection, Seen, StartLimit, observe};
use super::{at, failed, pod, read, read_task, ready, status, waiting};
use crate::converge::harmony::ContainerState;

fn seen(status: Value) -> Seen {
    let limit = StartLimit {
        since: at(0),
        seconds: 60,
    };
    observe(&read(status), Some(limit), at(30))
}

fn crash(status: Value) -> String {
    match seen(status.clone()) {
        Seen {
            state: ContainerState::CompletedCrashed,
            end: Some(End::Crashed(reason)),
            due: None,
        } => reason,
        other => panic!("{other:?} of {status}"),
    }
}

#[test]
fn a_pod_on_its_way_starts_and_a_ready_one_runs() {
    for status in [
        json!({}),
        json!({ "phase": "Pending" }),
        waiting("ContainerCreating", ""),
        waiting("ErrImagePull", "no such host"),
        waiting("CreateContainerConfigError", "secret \"s\" not found"),
        json!({ "phase": "Running", "podIP": "10.0.0.7", "conditions": [{ "type": "Ready", "status": "False" }] }),
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }),
    ] {
        let seen = seen(status.clone());
        assert_eq!(
            (seen.state, seen.due),
            (ContainerState::Starting, Some(at(60))),
            "{status}"
        );
    }
    assert_eq!(seen(ready()).state, ContainerState::Running);
    assert_eq!(seen(ready()).due, None);
}

#[test]
fn crashes_tell_status_signal_and_cause() {
    let ended = |terminated| crash(failed(terminated));
    assert_eq!(
        ended(json!({ "exitCode": 3, "reason": "Error" })),
        "exited with status 3"
    );
    assert_eq!(
        ended(json!({ "exitCode": 137, "reason": "OOMKilled" })),
        "OOMKilled: exited with status 137, killed by signal 9 (SIGKILL)"
    );
    assert_eq!(
        ended(json!({ "exitCode": 1, "reason": "Error", "message": "no database\n" })),
        "exited with status 1: no database"
    );
    assert_eq!(
        ended(
            json!({ "exitCode": 128, "reason": "StartError", "message": "exec: \"x\": not found" })
        ),
        "StartError: exited with status 128: exec: \"x\": not found"
    );
    assert_eq!(
        ended(json!({ "exitCode": 0, "signal": 15 })),
        "the Pod failed for no known reason",
        "a container that ended well is no reason"
    );
    assert_eq!(
        crash(json!({ "phase": "Succeeded" })),
        "exited with status 0"
    );
    assert_eq!(
        crash(json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "too long" })),
        "DeadlineExceeded: too long"
    );
    let mut two = failed(json!({ "exitCode": 2, "reason": "Error" }));
    two["phase"] = json!("Running");
    let mut helper = status(json!({ "running": {} }));
    helper["name"] = json!("helper");
    two["containerStatuses"] = json!([two["containerStatuses"][0], helper]);
    assert_eq!(
        crash(two),
        "container main exited with status 2",
        "one instance is all its containers together"
    );
}

#[test]
fn what_does_not_mend_by_waiting_is_a_crash_at_once() {
    assert_eq!(
        crash(waiting(
            "ImagePullBackOff",
            "Back-off pulling image \"web\""
        )),
        "ImagePullBackOff: Back-off pulling image \"web\""
    );
    for reason in ["InvalidImageName", "ErrImageNeverPull"] {
        assert_eq!(crash(waiting(reason, "")), reason);
    }
}

#[test]
fn a_start_has_a_limit() {
    let limit = |seconds| {
        Some(StartLimit {
            since: at(5),
            seconds,
        })
    };
    let config = read(waiting(
        "CreateContainerConfigError",
        "secret \"s\" not found",
    ));
    let end = |pod: &PodRecord, limit, now| observe(pod, limit, at(now)).end;
    assert_eq!(end(&config, limit(60), 64), None);
    assert_eq!(
        end(&config, limit(60), 65),
        Some(End::Crashed(
            "not ready within 60 s: CreateContainerConfigError: secret \"s\" not found".into()
        ))
    );
    let slow = read(json!({ "phase": "Running", "podIP": "10.0.0.7" }));
    assert_eq!(
        end(&slow, limit(60), 65),
        Some(End::Crashed("not ready within 60 s".into()))
    );
    assert_eq!(end(&slow, limit(0), 100_000), None, "0 is no limit");
    assert_eq!(
        end(&slow, None, 100_000),
        None,
        "one that ran once may be unready"
    );
}

#[test]
fn the_nodes_doing_is_no_crash() {
    let never_ran = |reason: &str| json!({ "phase": "Failed", "reason": reason, "message": "m" });
    for (reason, kind) in [
        ("Evicted", Rejection::Evicted),
        ("Preempting", Rejection::Preempted),
        ("OutOfcpu", Rejection::NotAdmitted),
        ("OutOfpods", Rejection::NotAdmitted),
        ("NodeAffinity", Rejection::NotAdmitted),
        ("TaintToleration", Rejection::NotAdmitted),
        ("UnexpectedAdmissionError", Rejection::NotAdmitted),
        ("NodePorts", Rejection::NotAdmitted),
        ("NodeShutdown", Rejection::NodeShutdown),
        ("Terminated", Rejection::NodeShutdown),
        ("NodeLost", Rejection::NodeShutdown),
    ] {
        let seen = seen(never_ran(reason));
        assert_eq!(
            (seen.state, seen.end),
            (
                ContainerState::CompletedShutdown,
                Some(End::Rejected(kind, format!("{reason}: m")))
            )
        );
    }
    let mut evicted = failed(json!({ "exitCode": 137, "reason": "Error" }));
    evicted["reason"] = json!("Evicted");
    assert!(matches!(
        seen(evicted).end,
        Some(End::Rejected(Rejection::Evicted, _))
    ));
    let mut drained = failed(json!({ "exitCode": 143, "reason": "Error" }));
    drained["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI" }]);
    assert_eq!(
        seen(drained).end,
        Some(End::Rejected(
            Rejection::Disrupted,
            "EvictionByEvictionAPI".into()
        ))
    );
}

#[test]
fn a_deletion_goes_on_until_its_grace_is_long_over() {
    let deleted = |status: Value| {
        let mut pod = pod("g1", status);
        let meta = serde_json::from_value(
            json!({ "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30 }),
        );
        let meta: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
            meta.expect("metadata");
        pod.metadata.deletion_timestamp = meta.deletion_timestamp;
        pod.metadata.deletion_grace_period_seconds = meta.deletion_grace_period_seconds;
        PodRecord::read(&pod).expect("one of ours")
    };
    let state = |status, now| {
        let seen = observe(&deleted(status), None, at(now));
        (seen.state, seen.end, seen.due)
    };
    let stopping = (ContainerState::Stopping, None, Some(at(40)));
    assert_eq!(state(ready(), 5), stopping);
    assert_eq!(state(ready(), 39), stopping);
    let stopped = (ContainerState::CompletedShutdown, Some(End::Deleted), None);
    assert_eq!(state(ready(), 40), stopped);
    assert_eq!(state(failed(json!({ "exitCode": 143 })), 5), stopped);
}

#[test]
fn a_task_ends_with_its_message_or_its_reason() {
    let end = |status: Value| observe(&read_task(status), None, at(30)).end;
    let well = |message: &str| {
        let mut status = failed(json!({ "exitCode": 0, "message": message }));
        status["phase"] = json!("Succeeded");
        status
    };
    assert_eq!(end(well("42")), Some(End::Succeeded(Some("42".into()))));
    assert_eq!(end(well("")), Some(End::Succeeded(None)));
    assert_eq!(
        end(failed(json!({ "exitCode": 4 }))),
        Some(End::Crashed("exited with status 4".into()))
    );
    assert_eq!(end(ready()), None, "it takes as long as it takes");
    let config = waiting("CreateContainerConfigError", "secret \"s\" not found");
    assert_eq!(end(config.clone()), None);
    let later = observe(&read_task(config), None, at(60)).end;
    assert_eq!(
        later,
        Some(End::Crashed(
            "CreateContainerConfigError: secret \"s\" not found".into()
        ))
    );
}

#[test]
fn foreign_pods_are_not_read() {
    assert!(PodRecord::read(&pod("g1", ready())).is_some());
    let mut unlabelled = pod("g1", ready());
    unlabelled.metadata.labels = None;
    assert_eq!(PodRecord::read(&unlabelled), None);
    for name in ["web-0", "web-0-g2", "another-g1"] {
        let mut named = pod("g1", ready());
        named.metadata.name = Some(name.into());
        assert_eq!(
            PodRecord::read(&named),
            None,
            "{name} has a guid of another"
        );
    }
    for (field, value) in [("kind", "ReplicaSet"), ("apiVersion", "example.com/v1")] {
        let mut json = json!(pod("g1", ready()));
        json["metadata"]["ownerReferences"][0][field] = json!(value);
        let other = serde_json::from_value(json).expect("a Pod");
        assert_eq!(PodRecord::read(&other), None, "{field} {value}");
    }
}

#[test]
fn a_refusal_does_not_change_with_the_pods_name() {
    let words = |message: &str| crate::converge::pods::refusal(message, "web-0-cf13cdaf");
    assert_eq!(
        words("pods \"web-0-cf13cdaf\" is forbidden: exceeded quota: q"),
        "exceeded quota: q"
    );
    assert_eq!(
        words("Pod \"web-0-cf13cdaf\" is invalid: spec.dnsPolicy: Unsupported value"),
        "spec.dnsPolicy: Unsupported value"
    );
    let webhook = "admission webhook \"a.b\" denied the request: no";
    assert_eq!(words(webhook), webhook);
}
