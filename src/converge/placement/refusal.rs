//! Why no Cell can take a piece of work, in Diego's words; and in the scheduler's, where Cells are nodes.

use super::company::Verdict;
use super::{Bidder, on_nodes};
use crate::api::ExecutorKind;
use crate::converge::demand::Demand;

/// Some Cell could take it, but as many instances are starting as may at once.
pub const START_LIMIT: &str = "waiting to start instance: reached in-flight start limit";

/// There is no Cell at all to ask.
const NOBODY: &str = "unable to communicate to compatible cells";

/// Cells have room, and the Pods there, or those that are not there, keep it from each.
const UNWELCOME: &str = "no cell satisfies the pod affinity and anti-affinity rules";

/// Its template names a scheduler.
pub(super) fn left_to(scheduler: &str) -> String {
    format!("left to scheduler {scheduler:?} by spec.template.spec.schedulerName")
}

/// Whether two refusals differ in nothing but their numbers. Those change with every Pod that comes and goes on any
/// node: what waits is not written again for that.
pub fn says_the_same(one: &str, other: &str) -> bool {
    let without_numbers = |text: &str| -> String {
        let digits = |c: &char| !c.is_ascii_digit();
        text.chars().filter(digits).collect()
    };
    match (
        one.split_once(on_nodes::MARK),
        other.split_once(on_nodes::MARK),
    ) {
        (Some((one, of_one)), Some((other, of_other))) => {
            one == other && without_numbers(of_one) == without_numbers(of_other)
        }
        _ => one == other,
    }
}

/// The last filter that no Cell passed.
pub(super) fn explain(
    bidders: &[Bidder<'_>],
    demand: &Demand,
    verdicts: Option<&[Verdict]>,
) -> String {
    let why = last_filter(bidders, demand);
    match on_nodes::summary(bidders, demand, verdicts) {
        Some(summary) => format!("{why}{summary}"),
        None => why,
    }
}

fn last_filter(bidders: &[Bidder<'_>], demand: &Demand) -> String {
    let open = || bidders.iter().filter(|bidder| !bidder.is_closed());
    if open().next().is_none() {
        return NOBODY.into();
    }
    if !open().any(|bidder| bidder.runs(demand)) {
        return no_executor(open(), demand);
    }
    let tagged = || open().filter(|bidder| bidder.runs(demand) && bidder.tags_match(&demand.tags));
    if tagged().next().is_none() {
        return no_tags(&demand.tags);
    }
    let compatible: Vec<&Bidder<'_>> = tagged()
        .filter(|bidder| bidder.stands_right(demand))
        .collect();
    if compatible.is_empty() {
        return "found no compatible cell".into();
    }
    let wanted = demand.resources;
    // Where there is room, Pods were the last to have a say.
    if compatible.iter().any(|bidder| bidder.room.fits(wanted)) {
        return UNWELCOME.into();
    }
    // Only what is lacking on all of them.
    let all = |lacks: &dyn Fn(&Bidder<'_>) -> bool| compatible.iter().all(|bidder| lacks(bidder));
    let lacking = [
        ("containers", all(&|one| one.room.lacks_containers())),
        ("cpu", all(&|one| one.room.lacks_cpu(wanted))),
        ("disk", all(&|one| one.room.lacks_disk(wanted))),
        ("memory", all(&|one| one.room.lacks_memory(wanted))),
    ];
    let lacking: Vec<&str> = lacking
        .into_iter()
        .filter_map(|(name, lacking)| lacking.then_some(name))
        .collect();
    match lacking.as_slice() {
        [] => "insufficient resources".into(),
        names => format!("insufficient resources: {}", names.join(", ")),
    }
}

/// Every executor that there is says why not.
fn no_executor<'a>(open: impl Iterator<Item = &'a Bidder<'a>>, demand: &Demand) -> String {
    let (mut process, mut pods) = (false, false);
    for bidder in open {
        match bidder.executor {
            ExecutorKind::Process => process = true,
            ExecutorKind::Pods => pods = true,
        }
    }
    let process = demand.process_refusal.as_deref().filter(|_| process);
    let pods = demand.pods_refusal.as_deref().filter(|_| pods);
    let refusals: Vec<&str> = process.into_iter().chain(pods).collect();
    refusals.join("; ")
}

fn no_tags(tags: &[String]) -> String {
    match tags {
        [] => "found no compatible cell with no placement tags".into(),
        [tag] => format!("found no compatible cell with placement tag \"{tag}\""),
        tags => format!(
            "found no compatible cell with placement tags \"{}\"",
            tags.join("\", \"")
        ),
    }
}
