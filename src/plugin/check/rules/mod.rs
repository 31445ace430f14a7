//! The rules: from what was read to what was found. They ask nobody and know no clock.

mod before;
mod cells;
mod clocks;
mod controller;
mod kubernetes;
mod monitoring;
mod presence;
mod reps;
#[cfg(test)]
mod tests;
mod work;

use super::facts::{Crd, Facts};
use super::finding::Finding;

pub use before::{before, release_of};
pub use kubernetes::unreachable;

/// Whether our kinds are not there at all.
fn none(crds: &[Crd]) -> bool {
    crds.iter().all(|crd| matches!(crd.theirs, Ok(None)))
}

/// What is found of an installation.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let words = &facts.words;
    let mut findings = vec![kubernetes::server(&facts.server)];
    findings.extend(kubernetes::rights(&facts.rights, words));
    findings.extend(kubernetes::crds(&facts.crds, words));
    if none(&facts.crds) {
        // Without the kinds there is nothing more to tell.
        return findings;
    }
    let leads = controller::leads(&facts.leaders, facts.server.now());
    if facts.programs.deployments.is_ok() {
        findings.push(controller::releases(&facts.programs, words));
    }
    findings.extend(controller::deployments(facts, leads));
    findings.push(controller::leader(facts));
    findings.extend(reps::reps(facts));
    findings.extend(presence::presence(facts));
    findings.extend(clocks::clocks(facts));
    findings.extend(cells::cells(facts));
    findings.extend(work::work(facts));
    findings.extend(monitoring::monitoring(facts));
    findings
}
