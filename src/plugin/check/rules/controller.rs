//! The controllers: one installation, enough of them, and one that leads.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::controller::leader;
use crate::plugin::check::facts::{Facts, Programs, Read, Scope, Words, label, namespace, renewed};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::text::age;

/// The label that names a release.
const INSTANCE: &str = "app.kubernetes.io/instance";

/// Both times that are compared are whole seconds.
const ROUNDING: i64 = 2;

/// The release of an object, with its namespace.
type Release = (String, String);

/// The releases of which something is there.
pub fn all_releases(programs: &Programs) -> BTreeSet<Release> {
    fn of(object: &impl kube::Resource) -> Release {
        (label(object, INSTANCE).to_owned(), namespace(object))
    }
    let deployments = programs.deployments.iter().flatten().map(of);
    let daemon_sets = programs.daemon_sets.iter().flatten().map(of);
    deployments.chain(daemon_sets).collect()
}

/// There is one installation.
pub fn releases(programs: &Programs, words: &Words) -> Finding {
    let found = all_releases(programs);
    let named = some(
        found
            .iter()
            .map(|(name, namespace)| format!("{name} in namespace {namespace}")),
    );
    let seen = match &programs.scope {
        Scope::All => String::new(),
        Scope::One(namespace) => format!(" (only namespace {namespace} could be looked at)"),
    };
    match found.len() {
        0 => Finding::ok(
            Category::Controller,
            "releases",
            format!("no release of the chart: the programs run outside of Kubernetes{seen}"),
        ),
        1 => Finding::ok(
            Category::Controller,
            "releases",
            format!("one installation: {named}{seen}"),
        ),
        _ => {
            let other = found
                .iter()
                .rev()
                .find(|one| programs.owner.as_ref() != Some(*one));
            let (name, namespace) = other.cloned().unwrap_or_default();
            let stays = programs
                .owner
                .as_ref()
                .map_or_else(String::new, |(name, namespace)| {
                    format!("; helm takes {name} in namespace {namespace} for the one that stays")
                });
            Finding::failure(Category::Controller, "releases", format!("{} releases are installed: {named}", found.len()))
                .because("Cells are cluster-wide: controllers that know nothing of each other both act on them, and place work twice")
                .remedy(format!("uninstall the one that is not to stay{stays}"))
                .command(format!("helm{} uninstall {name} --namespace {namespace}", words.helm))
                .docs("install.md#install")
        }
    }
}

/// The controllers run.
pub fn deployments(facts: &Facts, leads: bool) -> Vec<Finding> {
    let deployments = match &facts.programs.deployments {
        Ok(deployments) => deployments,
        Err(failure) => {
            return vec![Finding::unseen(
                Category::Controller,
                "deployment",
                "the controllers' Deployment",
                failure,
            )];
        }
    };
    if deployments.is_empty() {
        return (!leads)
            .then(|| {
                Finding::failure(Category::Controller, "deployment", "there is no controller")
                    .because("nothing is placed, and nothing is moved when a Cell is lost")
                    .remedy("install Diego with its chart")
                    .command(format!(
                        "helm{} install diego charts/diego-operator --namespace diego-system --create-namespace",
                        facts.words.helm
                    ))
                    .docs("install.md#install")
            })
            .into_iter()
            .collect();
    }
    let pods = facts.programs.pods.as_deref().unwrap_or_default();
    deployments
        .iter()
        .flat_map(|one| deployment(one, pods, &facts.words))
        .collect()
}

fn deployment(deployment: &Deployment, pods: &[Pod], words: &Words) -> Vec<Finding> {
    let (name, space) = (deployment.name_any(), namespace(deployment));
    let asked = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let said = format!("Deployment {space}/{name}: {ready} of {asked} controllers are ready");
    let logs = format!(
        "kubectl{} logs --namespace {space} deployment/{name} --all-containers --tail 50",
        words.kubectl
    );
    let kind = "controller";
    let first = match (asked, ready) {
        (0, _) => Finding::failure(
            Category::Controller,
            "deployment",
            format!("Deployment {space}/{name} is scaled to 0"),
        )
        .because("nothing is placed, and nothing is moved when a Cell is lost")
        .remedy("scale it up; for good with controller.replicas of the chart")
        .command(format!(
            "kubectl{} scale --namespace {space} deployment/{name} --replicas 2",
            words.kubectl
        ))
        .docs("runbooks/DiegoControllerDown.md"),
        (_, 0) => Finding::failure(Category::Controller, "deployment", said)
            .because(troubles(pods, &space, kind).unwrap_or_else(|| {
                "nothing is placed, and nothing is moved when a Cell is lost".into()
            }))
            .remedy("look at their log, and at their Pods with kubectl describe")
            .command(logs)
            .docs("runbooks/DiegoControllerDown.md"),
        (1, _) => Finding::warning(
            Category::Controller,
            "deployment",
            format!("Deployment {space}/{name}: there is one controller"),
        )
        .because("when it dies nothing is moved until it runs again elsewhere")
        .remedy("run two; for good with controller.replicas of the chart")
        .command(format!(
            "kubectl{} scale --namespace {space} deployment/{name} --replicas 2",
            words.kubectl
        ))
        .docs("runbooks/DiegoControllerNoStandby.md"),
        (asked, ready) if ready < asked => Finding::warning(
            Category::Controller,
            "deployment",
            said,
        )
        .because(troubles(pods, &space, kind).unwrap_or_else(|| {
            "nobody stands by, or one is missing: a second death would stop all recoveries".into()
        }))
        .remedy("look at their log, and at their Pods with kubectl describe")
        .command(logs)
        .docs("runbooks/DiegoControllerNoStandby.md"),
        (_, _) => Finding::ok(Category::Controller, "deployment", said),
    };
    let theirs = label(deployment, "app.kubernetes.io/version");
    let ours = env!("CARGO_PKG_VERSION");
    let other = !theirs.is_empty() && theirs != ours;
    let second = other.then(|| {
        Finding::warning(
            Category::Controller,
            "plugin-version",
            format!(
                "the controllers are of version {theirs}, and this plugin is of version {ours}"
            ),
        )
        .because("what one of them knows the other may not")
        .remedy("use the plugin of the version that is installed")
        .docs("plugin.md#installing")
    });
    [Some(first), second].into_iter().flatten().collect()
}

/// Why Pods are not ready, as far as they say it.
pub fn troubles(pods: &[Pod], space: &str, component: &str) -> Option<String> {
    let ours = pods.iter().filter(|pod| {
        namespace(*pod) == space && label(*pod, "app.kubernetes.io/component") == component
    });
    let told = ours.filter_map(|pod| {
        let status = pod.status.as_ref()?;
        let containers = status.container_statuses.iter().flatten();
        let waiting = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
        let reason = waiting.filter_map(|waiting| waiting.reason.clone()).next();
        let unscheduled = || {
            let conditions = status.conditions.iter().flatten();
            let mut no =
                conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
            no.next().and_then(|one| one.message.clone())
        };
        Some(format!(
            "{}: {}",
            pod.name_any(),
            reason.or_else(unscheduled)?
        ))
    });
    let told = some(told);
    (!told.is_empty()).then_some(told)
}

/// Who holds a Lease that has not run out.
fn holder(lease: &Lease, now: Timestamp) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())?;
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(0)) + ROUNDING;
    (now.duration_since(renewed(lease)?).as_secs() <= lasts).then_some(holder)
}

/// Whether anybody leads.
pub fn leads(leases: &Read<Vec<Lease>>, now: Timestamp) -> bool {
    leases
        .iter()
        .flatten()
        .any(|lease| holder(lease, now).is_some())
}

/// One controller leads.
pub fn leader(facts: &Facts) -> Finding {
    let now = facts.server.now();
    let leases = match &facts.leaders {
        Ok(leases) => leases,
        Err(failure) => {
            return Finding::unseen(
                Category::Controller,
                "leader",
                "the leader's Lease",
                failure,
            );
        }
    };
    let held: Vec<(&Lease, &str)> = leases
        .iter()
        .filter_map(|lease| Some((lease, holder(lease, now)?)))
        .collect();
    let in_namespaces = some(
        held.iter()
            .map(|(lease, holder)| format!("{holder} in namespace {}", namespace(*lease))),
    );
    match held.len() {
        0 => nobody(facts, leases, now),
        1 => Finding::ok(Category::Controller, "leader", format!("one controller leads: {in_namespaces}")),
        many => Finding::failure(Category::Controller, "leader", format!("{many} controllers lead: {in_namespaces}"))
            .because("they are elected in different namespaces and know nothing of each other: both act on all Cells")
            .remedy("keep one installation: uninstall the other release, or stop the other controllers; see them with")
            .command(format!("kubectl{} get leases --all-namespaces --field-selector metadata.name={}", facts.words.kubectl, leader::NAME))
            .docs("install.md#install"),
    }
}

fn nobody(facts: &Facts, leases: &[Lease], now: Timestamp) -> Finding {
    let deployment = facts.programs.deployments.iter().flatten().next();
    // An installation that is gone may have left its own.
    let space = deployment.map(namespace);
    let ours = leases.iter().filter(|lease| {
        space
            .as_ref()
            .is_none_or(|space| *space == namespace(*lease))
    });
    let why = match ours.max_by_key(|lease| renewed(lease)) {
        None => format!(
            "there is no Lease {}; a controller that runs without --leader-elect makes none",
            leader::NAME
        ),
        Some(lease) => {
            let space = namespace(lease);
            let last =
                renewed(lease).map_or_else(|| "never".into(), |at| format!("{} ago", age(at, now)));
            let spec = lease.spec.as_ref();
            match spec
                .and_then(|spec| spec.holder_identity.as_deref())
                .filter(|holder| !holder.is_empty())
            {
                Some(holder) => format!(
                    "{holder}, which led, renewed the Lease {space}/{} last {last}",
                    leader::NAME
                ),
                None => format!(
                    "the Lease {space}/{} was given up {last}, and nobody has taken it",
                    leader::NAME
                ),
            }
        }
    };
    let finding = Finding::failure(Category::Controller, "leader", "no controller leads")
        .because(format!(
            "{why}. Nothing is placed or moved meanwhile; what runs goes on"
        ))
        .docs("runbooks/DiegoControllerNoLeader.md");
    match deployment {
        Some(one) => finding
            .remedy("look at the controllers' log")
            .command(format!(
                "kubectl{} logs --namespace {} deployment/{} --tail 50",
                facts.words.kubectl,
                namespace(one),
                one.name_any()
            )),
        None => finding
            .remedy("see that a controller runs with --leader-elect, and look at its log")
            .command(format!(
                "kubectl{} get leases --all-namespaces --field-selector metadata.name={}",
                facts.words.kubectl,
                leader::NAME
            )),
    }
}
