//! What must be so before an installation.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::controller::all_releases;
use super::kubernetes;
use crate::plugin::check::facts::{Before, Crd, Read};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::text::count;

/// A Cell is named like its Node, and no longer than this.
const LONGEST_NAME: usize = 63;

/// All about it.
pub fn before(facts: &Before) -> Vec<Finding> {
    let mut findings = vec![kubernetes::server(&facts.server)];
    findings.push(groups(facts));
    findings.push(nodes(&facts.nodes));
    findings.push(kubernetes::rights_to_install(&facts.rights, &facts.words));
    findings.extend(crds(facts));
    findings.push(releases(facts));
    findings
}

fn groups(facts: &Before) -> Finding {
    let lacking = facts
        .groups
        .iter()
        .filter(|(_, there)| matches!(there, Ok(false)));
    let lacking = some(lacking.map(|(group, _)| (*group).to_owned()));
    let unread = facts
        .groups
        .iter()
        .find_map(|(_, there)| there.as_ref().err());
    if let Some(failure) = unread {
        return Finding::unseen(
            Category::Kubernetes,
            "features",
            "what the API server serves",
            failure,
        );
    }
    match lacking.is_empty() {
        true => Finding::ok(Category::Kubernetes, "features", "it has admission policies, priorities of requests, and all else that the chart uses"),
        false => Finding::failure(Category::Kubernetes, "features", format!("the API server does not serve {lacking}"))
            .because("the chart guards the Cells' presence with an admission policy, and gives renewals a priority of their own")
            .remedy("switch it on in the API server (--runtime-config), or do without: rbac.admissionPolicy=false, flowControl.enabled=false")
            .docs("install.md#before-production"),
    }
}

fn nodes(nodes: &Read<Vec<Node>>) -> Finding {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(failure) => {
            return Finding::unseen(Category::Kubernetes, "nodes", "the Nodes", failure);
        }
    };
    let long = some(
        nodes
            .iter()
            .map(Node::name_any)
            .filter(|name| name.len() > LONGEST_NAME),
    );
    if !long.is_empty() {
        return Finding::warning(
            Category::Kubernetes,
            "nodes",
            format!("Nodes with names of more than {LONGEST_NAME} characters: {long}"),
        )
        .because("a Cell is named like its Node: the rep there ends with an error")
        .remedy("rename them, or keep reps away with rep.nodeSelector or rep.affinity")
        .docs("install.md#before-production");
    }
    let ready = |node: &&Node| {
        let conditions = node
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one.type_ == "Ready" && one.status == "True")
        })
    };
    match nodes.iter().filter(ready).count() {
        0 => Finding::warning(Category::Kubernetes, "nodes", "no Node is Ready")
            .because(
                "with the chart Nodes become Cells; reps that run outside of Kubernetes need none",
            )
            .remedy("add Nodes, or see why they are not Ready")
            .docs("nodes.md"),
        1 => Finding::warning(Category::Kubernetes, "nodes", "one Node is Ready")
            .because("when it is lost, its work has nowhere to go, and nobody is there to see it")
            .remedy("add Nodes, in more than one zone")
            .docs("install.md#before-production"),
        many => Finding::ok(
            Category::Kubernetes,
            "nodes",
            format!(
                "{} are Ready, and have names that Cells may have",
                count(many, "Node")
            ),
        ),
    }
}

/// None are there, or those of this version.
fn crds(facts: &Before) -> Vec<Finding> {
    let none = facts.crds.iter().all(|crd| matches!(crd.theirs, Ok(None)));
    if none {
        return vec![Finding::ok(
            Category::Crds,
            "crds",
            "no CRDs of Diego are there yet",
        )];
    }
    let mut findings = kubernetes::crds(&facts.crds, &facts.words);
    let kept = facts.crds.iter().find_map(owner);
    if let Some((release, namespace)) = kept {
        findings.push(
            Finding::ok(Category::Crds, "crds-owner", format!("the CRDs belong to release {release} in namespace {namespace}: install under these names, or with --take-ownership")),
        );
    }
    findings
}

fn owner(crd: &Crd) -> Option<(String, String)> {
    let theirs = crd.theirs.as_ref().ok()?.as_ref()?;
    release_of(theirs)
}

/// The release that helm noted in an object, with its namespace.
pub fn release_of(object: &impl kube::Resource) -> Option<(String, String)> {
    let of = |key: &str| object.annotations().get(key).cloned();
    Some((
        of("meta.helm.sh/release-name")?,
        of("meta.helm.sh/release-namespace")?,
    ))
}

fn releases(facts: &Before) -> Finding {
    let found = all_releases(&facts.programs);
    let found = found.into_iter().chain(facts.programs.owner.clone()).next();
    if let Err(failure) = &facts.programs.deployments {
        return Finding::unseen(
            Category::Controller,
            "releases",
            "whether Diego is installed already",
            failure,
        );
    }
    match found {
        None => Finding::ok(Category::Controller, "releases", "Diego is not installed yet"),
        Some((release, namespace)) => Finding::failure(Category::Controller, "releases", format!("Diego is installed already: release {release} in namespace {namespace}"))
            .because("there can be one installation in a cluster: two controllers would both act on all Cells")
            .remedy("upgrade that one; how it is shows kubectl diego check without --pre")
            .command(format!(
                "helm{} upgrade {release} charts/diego-operator --namespace {namespace} --reset-then-reuse-values",
                facts.words.helm
            ))
            .docs("install.md#upgrade"),
    }
}
