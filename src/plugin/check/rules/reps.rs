//! The reps: one on each Node that is to be a Cell, and a Cell for each.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::api::Cell;
use crate::plugin::check::facts::{Facts, Words, label, namespace};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::check::rules::controller::troubles;
use crate::plugin::text::count;

/// The reps run, and their Nodes are Cells.
pub fn reps(facts: &Facts) -> Vec<Finding> {
    let sets = match &facts.programs.daemon_sets {
        Ok(sets) => sets,
        Err(failure) => {
            return vec![Finding::unseen(
                Category::Reps,
                "daemon-set",
                "the reps' DaemonSet",
                failure,
            )];
        }
    };
    let pods = facts.programs.pods.as_deref().unwrap_or_default();
    let mut findings: Vec<Finding> = sets
        .iter()
        .map(|set| daemon_set(set, pods, &facts.words))
        .collect();
    if let (Ok(cells), false) = (&facts.cells, sets.is_empty()) {
        findings.extend(nodes(cells, pods, facts));
    }
    findings
}

fn daemon_set(set: &DaemonSet, pods: &[Pod], words: &Words) -> Finding {
    let (name, space) = (set.name_any(), namespace(set));
    let status = set.status.clone().unwrap_or_default();
    let (asked, ready) = (status.desired_number_scheduled, status.number_ready);
    let said = format!("DaemonSet {space}/{name}: {ready} of {asked} reps are ready");
    let finding = match (asked, ready) {
        (0, _) => {
            return Finding::failure(Category::Reps, "daemon-set", format!("DaemonSet {space}/{name}: no Node takes a rep"))
                .because("there will be no Cell: nothing can be placed")
                .remedy("set rep.nodeSelector and rep.tolerations of the chart so that Nodes match; see what it asks for with")
                .command(format!("kubectl{} describe --namespace {space} daemonset/{name}", words.kubectl))
                .docs("install.md#install");
        }
        (asked, ready) if ready >= asked => return Finding::ok(Category::Reps, "daemon-set", said),
        (_, 0) => Finding::failure(Category::Reps, "daemon-set", said),
        (_, _) => Finding::warning(Category::Reps, "daemon-set", said),
    };
    let without = "a Node without its rep is no Cell: its work runs elsewhere".to_owned();
    finding
        .because(troubles(pods, &space, "rep").unwrap_or(without))
        .remedy("look at the Pods that are not ready, and at their log; during an upgrade wait")
        .command(format!(
            "kubectl{} get pods --namespace {space} --selector app.kubernetes.io/component=rep --output wide",
            words.kubectl
        ))
        .docs("runbooks/DiegoRepDown.md")
}

fn nodes(cells: &[Cell], pods: &[Pod], facts: &Facts) -> Vec<Finding> {
    let of_cells: BTreeSet<&str> = cells
        .iter()
        .filter_map(|cell| cell.spec.node_name.as_deref())
        .collect();
    let reps = pods
        .iter()
        .filter(|pod| label(*pod, "app.kubernetes.io/component") == "rep" && is_ready(pod));
    let hosts: BTreeSet<&str> = reps
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect();
    let bare = some(hosts.difference(&of_cells).map(|node| (*node).to_owned()));
    let mut findings = Vec::new();
    if !bare.is_empty() {
        findings.push(
            Finding::failure(Category::Reps, "nodes", format!("Nodes with a rep that are no Cells: {bare}"))
                .because("the rep is ready and has not made its Cell")
                .remedy("look at the log of the rep there")
                .command(format!(
                    "kubectl{} logs --all-namespaces --selector app.kubernetes.io/component=rep --tail 20 --prefix",
                    facts.words.kubectl
                ))
                .docs("runbooks/DiegoRepPresenceNotHeld.md"),
        );
    }
    match &facts.nodes {
        Err(failure) => findings.push(Finding::unseen(
            Category::Reps,
            "nodes",
            "the Nodes",
            failure,
        )),
        Ok(nodes) => {
            let known: BTreeSet<String> = nodes.iter().map(Node::name_any).collect();
            let gone = of_cells.iter().filter(|node| !known.contains(**node));
            let gone = some(gone.map(|node| (*node).to_owned()));
            if !gone.is_empty() {
                findings.push(
                    Finding::warning(Category::Reps, "nodes", format!("Cells whose Node is gone: {gone}"))
                        .because("the controller deletes such a Cell by itself when its work has a place elsewhere")
                        .remedy("wait; what keeps one shows")
                        .command(format!("kubectl diego{} trace cell/NAME", facts.words.kubectl))
                        .docs("nodes.md#cells-that-are-gone"),
                );
            }
        }
    }
    if findings.is_empty() && !hosts.is_empty() {
        findings.push(Finding::ok(
            Category::Reps,
            "nodes",
            format!(
                "{} with a rep, and each is a Cell",
                count(hosts.len(), "Node")
            ),
        ));
    }
    findings
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    })
}
