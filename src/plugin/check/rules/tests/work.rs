//! Cells, what runs on them, and who looks at it.

use super::*;
use crate::api::SuspectInstance;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

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
