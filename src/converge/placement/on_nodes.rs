//! How many nodes each filter removed, in the scheduler's words: `; 0/3 nodes are available: 1 Insufficient cpu, ...`.

use std::collections::BTreeMap;

use super::company::Verdict;
use super::{Bidder, Ground};
use crate::api::ExecutorKind;
use crate::converge::demand::Demand;
use crate::converge::node;

/// Where the summary begins.
pub(super) const MARK: &str = "; 0/";

/// The summary; `None` where no Cell is a node, or where none could run it whatever its node.
pub(super) fn summary(
    bidders: &[Bidder<'_>],
    demand: &Demand,
    verdicts: Option<&[Verdict]>,
) -> Option<String> {
    if demand.pods_refusal.is_some() {
        return None;
    }
    let nodes = bidders
        .iter()
        .enumerate()
        .filter(|(_, bidder)| bidder.executor == ExecutorKind::Pods);
    let mut all = 0;
    let mut removed: BTreeMap<String, usize> = BTreeMap::new();
    for (n, bidder) in nodes {
        all += 1;
        let verdict = verdicts.map_or(Ok(()), |verdicts| verdicts[n]);
        for reason in reasons(bidder, demand, verdict) {
            *removed.entry(reason).or_default() += 1;
        }
    }
    if all == 0 {
        return None;
    }
    let removed: Vec<String> = removed
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    Some(format!(
        "{MARK}{all} nodes are available: {}",
        removed.join(", ")
    ))
}

/// What the first filter that removed it says; the count of resources names all that is lacking.
fn reasons(bidder: &Bidder<'_>, demand: &Demand, verdict: Verdict) -> Vec<String> {
    let one = |reason: &str| vec![reason.to_owned()];
    let ground = bidder.node.unwrap_or(Ground {
        name: "",
        standing: node::Standing::NotFound,
        record: None,
    });
    if let Some(why_not) = ground.standing.why_not() {
        return one(why_not);
    }
    if bidder.cordoned {
        return one("node(s) were cordoned by their Cell");
    }
    if bidder.rests {
        return one("node(s) were held back with their Cell");
    }
    if !bidder.tags_match(&demand.tags) {
        return one("node(s) didn't match the placement tags");
    }
    let fit = ground
        .record
        .map(|record| node::fit(&demand.node, ground.name, record));
    if let Some(Err(unfit)) = fit {
        return one(&unfit.to_string());
    }
    let (room, wanted) = (&bidder.room, demand.resources);
    let lacking = [
        ("Insufficient cpu", room.lacks_cpu(wanted)),
        ("Insufficient ephemeral-storage", room.lacks_disk(wanted)),
        ("Insufficient memory", room.lacks_memory(wanted)),
        ("Too many pods", room.lacks_containers()),
    ];
    let lacking = lacking.into_iter().filter(|(_, lacking)| *lacking);
    let lacking: Vec<String> = lacking.map(|(reason, _)| reason.to_owned()).collect();
    match verdict {
        Err(unwelcome) if lacking.is_empty() => one(unwelcome.words()),
        Err(_) | Ok(()) => lacking,
    }
}
