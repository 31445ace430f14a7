//! The API server, what the user may do there, and our kinds.

use std::collections::BTreeMap;

use crate::client::{Difference, OLDEST, compare, minor_version, shortened};
use crate::plugin::check::facts::{Asked, Crd, Read, Server, Words};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::failure::Failure;

use kube::ResourceExt;

/// Nobody answers, or does not know the user: nothing else can be looked at.
pub fn unreachable(failure: &Failure) -> Finding {
    let words = failure.to_string();
    let about_time = ["expired", "not valid yet", "Expired", "NotValidYet"];
    let wrong_clock = about_time.iter().any(|word| words.contains(word));
    let finding = Finding::failure(
        Category::Kubernetes,
        "api-server",
        "the API server can't be asked",
    )
    .because(words)
    .docs("plugin.md#for-all-verbs");
    match wrong_clock {
        true => finding
            .remedy("if the certificate is good, the clock of this machine is wrong: set it")
            .command("date --utc"),
        false => finding
            .remedy("choose another cluster or user with --kubeconfig or --context, or see why this one does not answer")
            .command("kubectl config get-contexts"),
    }
}

/// It answers, and is new enough.
pub fn server(server: &Server) -> Finding {
    let Server { url, version, .. } = server;
    match (minor_version(version), minor_version(OLDEST)) {
        (Some(found), Some(oldest)) if found < oldest => Finding::failure(
            Category::Kubernetes,
            "version",
            format!("{url} is Kubernetes {version}, and {OLDEST} is the oldest that will do"),
        )
        .because("objects are selected by fields of their status, which older ones don't do")
        .remedy("upgrade it, or choose another cluster with --context")
        .docs("install.md"),
        (None, _) => Finding::warning(
            Category::Kubernetes,
            "version",
            format!("{url} says that its version is '{version}', which can't be understood"),
        )
        .because("an older one does not select objects by fields of their status")
        .remedy(format!("see to it that it is Kubernetes {OLDEST} or newer"))
        .docs("install.md"),
        (Some(_), _) => Finding::ok(
            Category::Kubernetes,
            "version",
            format!("{url} answers, and is Kubernetes {version}"),
        ),
    }
}

/// What the verbs of the plugin may do.
pub fn rights(asked: &Read<Vec<Asked>>, words: &Words) -> Vec<Finding> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(failure) => {
            return vec![Finding::unseen(
                Category::Rights,
                "rights",
                "your rights",
                failure,
            )];
        }
    };
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for right in asked.iter().filter(|right| !right.allowed) {
        let right_words = format!("{} {}", right.verb, right.resource);
        missing.entry(right.purpose).or_default().push(right_words);
    }
    if missing.is_empty() {
        return vec![Finding::ok(
            Category::Rights,
            "rights",
            "you have the rights that all verbs of this plugin need",
        )];
    }
    let told = missing.into_iter().map(|(purpose, rights)| {
        Finding::warning(Category::Rights, "rights", format!("{purpose}: a right is missing"))
            .because(format!("you may not {}", rights.join(", ")))
            .remedy("if you need it, ask an administrator for the role that gives it; see what you have with")
            .command(format!("kubectl{} auth can-i --list", words.kubectl))
            .docs("plugin.md#for-all-verbs")
    });
    told.collect()
}

/// What an installation needs of who makes it.
pub fn rights_to_install(asked: &Read<Vec<Asked>>, words: &Words) -> Finding {
    let asked = match asked {
        Ok(asked) => asked,
        Err(failure) => return Finding::unseen(Category::Rights, "rights", "your rights", failure),
    };
    let missing: Vec<String> = asked
        .iter()
        .filter(|right| !right.allowed)
        .map(|right| format!("{} {}", right.verb, right.resource))
        .collect();
    match missing.first() {
        None => Finding::ok(
            Category::Rights,
            "rights",
            "you may create what the chart has",
        ),
        Some(first) => Finding::failure(
            Category::Rights,
            "rights",
            "you may not create all that the chart has",
        )
        .because(format!("you may not {}", missing.join(", ")))
        .remedy("install as an administrator of the cluster: choose another user with --context or --as, and ask again with")
        .command(format!("kubectl{} auth can-i {first}", words.kubectl))
        .docs("install.md#install"),
    }
}

/// Our kinds are there, and have all that this program writes.
pub fn crds(crds: &[Crd], words: &Words) -> Vec<Finding> {
    let names = |all: &[&Crd]| some(all.iter().map(|crd| crd.ours.name_any()));
    let absent: Vec<&Crd> = crds
        .iter()
        .filter(|crd| matches!(crd.theirs, Ok(None)))
        .collect();
    if !absent.is_empty() && absent.len() == crds.len() {
        return vec![
            Finding::failure(Category::Crds, "crds", "the CRDs are not there: Diego is not installed")
                .because("the API server does not know Cells, DesiredLRPs, ActualLRPs and Tasks")
                .remedy("install Diego with its chart, whose CRDs come along; or the CRDs alone, from a checkout")
                .command(format!("kubectl{} apply --server-side --filename crds/", words.kubectl))
                .docs("install.md#install"),
        ];
    }
    let mut findings = Vec::new();
    if !absent.is_empty() {
        findings.push(
            update(
                Finding::failure(
                    Category::Crds,
                    "crds",
                    format!("some CRDs are not there: {}", names(&absent)),
                ),
                words,
            )
            .because("a controller without all of them does not start"),
        );
    }
    for crd in crds {
        match &crd.theirs {
            Ok(None) => {}
            Ok(Some(theirs)) => findings.extend(differs(
                &crd.ours.name_any(),
                &compare(&crd.ours, theirs),
                words,
            )),
            Err(failure) => {
                findings.push(Finding::unseen(Category::Crds, "crds", "the CRDs", failure));
                // The same holds for the others.
                return findings;
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Category::Crds,
            "crds",
            "the CRDs are there, and have all that this version writes",
        ));
    }
    findings
}

fn differs(name: &str, difference: &Difference, words: &Words) -> Option<Finding> {
    if !difference.missing.is_empty() {
        let missing = shortened(&difference.missing);
        let finding = Finding::failure(
            Category::Crds,
            "crds",
            format!("{name} is older than this program"),
        );
        return Some(update(finding, words).because(format!(
            "it lacks {missing}: what is written there is lost, and a controller of this version ends at its start"
        )));
    }
    if difference.unknown.is_empty() {
        return None;
    }
    let unknown = shortened(&difference.unknown);
    Some(
        Finding::warning(
            Category::Crds,
            "crds",
            format!("{name} is newer than this program"),
        )
        .because(format!("it has {unknown}, which this program leaves alone"))
        .remedy("use the plugin of the version that is installed")
        .docs("plugin.md#installing"),
    )
}

/// How CRDs are brought up to date.
fn update(finding: Finding, words: &Words) -> Finding {
    finding
        .remedy("upgrade the release with crds.install=true; or, where the CRDs are managed apart, from a checkout of this version")
        .command(format!(
            "kubectl{} apply --server-side --force-conflicts --filename crds/",
            words.kubectl
        ))
        .docs("install.md#crds-apart-and-gitops")
}
