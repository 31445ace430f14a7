//! Why no Cell can take a piece of work, in Diego's words.

use super::Bidder;
use crate::converge::demand::Demand;

/// Some Cell could take it, but as many instances are starting as may at once.
pub const START_LIMIT: &str = "waiting to start instance: reached in-flight start limit";

/// There is no Cell at all to ask.
const NOBODY: &str = "unable to communicate to compatible cells";

/// The last filter that no Cell passed.
pub(super) fn explain(bidders: &[Bidder<'_>], demand: &Demand) -> String {
    let open = || bidders.iter().filter(|bidder| !bidder.cordoned);
    if open().next().is_none() {
        return NOBODY.into();
    }
    if !open().any(|bidder| bidder.runs(demand)) {
        return match &demand.process_refusal {
            Some(refusal) => refusal.clone(),
            None => "found no compatible cell: no Cell has an executor for it".into(),
        };
    }
    let tagged: Vec<&Bidder<'_>> = open().filter(|bidder| bidder.compatible(demand)).collect();
    if tagged.is_empty() {
        return no_tags(&demand.tags);
    }
    // Only what is lacking on all of them.
    let wanted = demand.resources;
    let lacking = [
        (
            "containers",
            tagged.iter().all(|bidder| bidder.room.lacks_containers()),
        ),
        (
            "disk",
            tagged.iter().all(|bidder| bidder.room.lacks_disk(wanted)),
        ),
        (
            "memory",
            tagged.iter().all(|bidder| bidder.room.lacks_memory(wanted)),
        ),
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
