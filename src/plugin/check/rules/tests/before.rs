//! What is told before an installation, and where nothing can be told.

use super::*;
use crate::plugin::check::facts::Before;
use crate::plugin::check::rules::before;

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
        crate::plugin::check::rules::unreachable(&Failure::Unreachable {
            server: "https://here/".into(),
            problem: problem.into(),
        })
    };
    let untimely = of("invalid peer certificate: certificate not valid yet");
    assert_eq!(untimely.command.as_deref(), Some("date --utc"));
    let refused = of("connection refused").command;
    assert_eq!(refused.as_deref(), Some("kubectl config get-contexts"));
}
