//! The presence store, as the controllers see it, and as the Leases show it where the presence is kept in them.

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::api::CellState;
use crate::plugin::check::facts::{Facts, namespace, renewed};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::failure::Failure;
use crate::plugin::text::count;
use crate::presence::kubernetes::lease_name;

/// 1 while a controller hears from its store.
const REACHABLE: &str = "diego_presence_store_reachable";

/// 1 on who leads.
const MASTER: &str = "leader_election_master_status";

/// Both times that are compared are whole seconds; and a renewal may be under way.
const ROUNDING: i64 = 3;

/// The store can be reached, and Cells that are there have a presence.
pub fn presence(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![store(facts)];
    match &facts.presences {
        Ok(leases) if leases.is_empty() => {}
        Ok(_) => findings.extend(leases(facts)),
        Err(failure) => findings.push(Finding::unseen(
            Category::Presence,
            "presences",
            "the Cells' Leases",
            failure,
        )),
    }
    findings
}

fn store(facts: &Facts) -> Finding {
    let read = facts
        .pages
        .iter()
        .filter_map(|page| Some((page, page.text.as_deref().ok()?)));
    let seen: Vec<(&str, f64, bool)> = read
        .filter_map(|(page, text)| {
            let leads = metric(text, MASTER) == Some(1.0);
            Some((page.pod.as_str(), metric(text, REACHABLE)?, leads))
        })
        .collect();
    // What the leader hears counts; without one, what anybody hears.
    let leader = seen.iter().find(|(_, _, leads)| *leads);
    let best = seen.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    match leader.or(best) {
        Some((pod, 1.0, _)) => Finding::ok(
            Category::Presence,
            "presence-store",
            format!("the presence store can be reached: {pod} hears from it"),
        ),
        Some((pod, _, _)) => {
            let space = facts
                .programs
                .deployments
                .iter()
                .flatten()
                .next()
                .map(namespace)
                .unwrap_or_default();
            Finding::failure(Category::Presence, "presence-store", format!("the presence store can't be reached: {pod} hears nothing from it"))
                .because("nobody is taken for lost meanwhile: a Cell that dies now is found when the store is back")
                .remedy("bring it back: etcd's members, their certificates, the network to it; the log of the controller says what fails")
                .command(format!("kubectl{} logs --namespace {space} {pod} --tail 50", facts.words.kubectl))
                .docs("runbooks/DiegoPresenceStoreUnreachable.md")
        }
        None => unseen(facts),
    }
}

/// No controller showed its metrics.
fn unseen(facts: &Facts) -> Finding {
    let remedy =
        format!("look at {REACHABLE} of the controllers, in Prometheus or at --metrics-addr");
    let wrong = facts.pages.iter().find_map(|page| page.text.as_ref().err());
    let finding = match wrong {
        Some(failure @ Failure::NoRight(_)) => {
            let finding = Finding::unseen(
                Category::Presence,
                "presence-store",
                "the presence store",
                failure,
            );
            let own = finding.remedy.clone().unwrap_or_default();
            return finding.remedy(format!("{own}; or {remedy}"));
        }
        Some(failure) => Finding::warning(
            Category::Presence,
            "presence-store",
            "whether the presence store can be reached is not known",
        )
        .because(format!(
            "the metrics of {} can't be read through the API server: {failure}",
            count(facts.pages.len(), "controller")
        )),
        None => Finding::warning(
            Category::Presence,
            "presence-store",
            "whether the presence store can be reached is not known",
        )
        .because(
            "no controller runs as a Pod here, whose metrics could be read through the API server",
        ),
    };
    finding
        .remedy(remedy)
        .docs("operating.md#where-the-presence-is-kept")
}

/// Cells that count as there renew their Lease.
fn leases(facts: &Facts) -> Option<Finding> {
    let now = facts.server.now();
    let cells = facts.cells.as_deref().ok()?;
    let leases = facts.presences.as_deref().ok()?;
    let by_name: BTreeMap<String, _> = leases
        .iter()
        .map(|lease| (lease.name_any(), lease))
        .collect();
    let present = cells.iter().filter(|cell| {
        let status = cell.status.as_ref();
        status.and_then(|status| status.state) == Some(CellState::Present)
    });
    let mut there = 0;
    let mut late = Vec::new();
    for cell in present {
        let Some(lease) = by_name.get(&lease_name(&cell.name_any())) else {
            continue;
        };
        there += 1;
        let lasts = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds)
            .unwrap_or(0);
        let at = renewed(lease)?;
        // A loss is told within a TTL and a little.
        if now.duration_since(at).as_secs() > 2 * i64::from(lasts) + ROUNDING {
            late.push(cell.name_any());
        }
    }
    if late.is_empty() {
        return (there > 0).then(|| {
            Finding::ok(
                Category::Presence,
                "presences",
                format!(
                    "{} that are present renew their Lease",
                    count(there, "Cell")
                ),
            )
        });
    }
    let space = leases.first().map(namespace).unwrap_or_default();
    Some(
        Finding::failure(Category::Presence, "presences", format!("Cells that count as present do not renew their Lease: {}", some(late)))
            .because("their loss was not noticed: no controller leads, or it holds the loss back")
            .remedy("look at the Leases, and at the controllers' log")
            .command(format!("kubectl{} get leases --namespace {space} --selector diego.cloudfoundry.org/presence=cell", facts.words.kubectl))
            .docs("operating.md#where-the-presence-is-kept"),
    )
}

/// A metric in the text format, whatever its labels: the largest of its series.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.max_by(f64::total_cmp)
}
