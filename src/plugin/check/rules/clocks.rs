//! Clocks: this machine's, the controllers' and the Nodes', each against the API server's.
//!
//! The API server notes by its own clock when it wrote a renewal, and the holder of a Lease by its own when it renewed: the
//! two are compared, so that it does not matter how long ago that was.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::plugin::check::facts::{Facts, Read, Server, namespace, renewed, said};
use crate::plugin::check::finding::{Category, Finding, some};

/// From here on it is told.
const OFF: i64 = 5;

/// From here on certificates and tokens that are just made are refused.
const FAR_OFF: i64 = 60;

/// What was renewed so long ago says nothing of a clock now.
const RECENT: i64 = 600;

/// All clocks.
pub fn clocks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(local(&facts.server));
    findings.extend(others(facts));
    findings
}

/// How far ahead a clock is of the server's: nothing within the second that its time is told in.
fn ahead(earliest: Timestamp, latest: Timestamp, second: Timestamp) -> SignedDuration {
    let end = second
        .saturating_add(SignedDuration::from_secs(1))
        .unwrap_or(second);
    if earliest > end {
        earliest.duration_since(end)
    } else if latest < second {
        latest.duration_since(second)
    } else {
        SignedDuration::ZERO
    }
}

fn in_words(ahead: SignedDuration) -> String {
    let seconds = ahead.as_secs().unsigned_abs();
    let long = match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    };
    format!(
        "{long} {}",
        if ahead.is_positive() {
            "ahead"
        } else {
            "behind"
        }
    )
}

/// This machine's. Nothing of the cluster hangs on it: the user's words on times do.
fn local(server: &Server) -> Option<Finding> {
    let ahead = ahead(server.asked, server.answered, server.date?);
    let finding = match ahead.as_secs().abs() < OFF {
        true => Finding::ok(Category::Clocks, "local-clock", "this machine's clock agrees with the API server's"),
        false => Finding::warning(Category::Clocks, "local-clock", format!("this machine's clock is {} of the API server's", in_words(ahead)))
            .because("ages and times that other verbs show are off by that; the check goes by the API server's clock")
            .remedy("set it, or switch time synchronisation on")
            .command("timedatectl set-ntp true")
            .docs("plugin.md#clocks"),
    };
    Some(finding)
}

/// Those of who renews Leases.
fn others(facts: &Facts) -> Vec<Finding> {
    let now = facts.server.now();
    let leader = |lease: &Lease| {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        format!("controller {}", holder.unwrap_or_else(|| namespace(lease)))
    };
    let of = |leases: &Read<Vec<Lease>>,
              name: &dyn Fn(&Lease) -> String|
     -> Vec<(String, SignedDuration)> {
        let leases = leases.iter().flatten();
        leases
            .filter_map(|lease| Some((name(lease), skew(lease, now)?)))
            .collect()
    };
    let mut seen = of(&facts.leaders, &leader);
    seen.extend(of(&facts.presences, &|lease| {
        format!("rep {}", lease.name_any().trim_start_matches("cell-"))
    }));
    seen.extend(of(&facts.node_leases, &|lease| {
        format!("Node {}", lease.name_any())
    }));
    let mut findings = Vec::new();
    // That the other Leases can't be read is told where they are about more than clocks.
    if let Err(failure) = &facts.node_leases {
        let what = "the Leases of the Nodes";
        findings.push(Finding::unseen(Category::Clocks, "clocks", what, failure));
    }
    let mut off: Vec<&(String, SignedDuration)> = seen
        .iter()
        .filter(|(_, ahead)| ahead.as_secs().abs() >= OFF)
        .collect();
    off.sort_by_key(|(_, ahead)| std::cmp::Reverse(ahead.abs()));
    let Some((_, worst)) = off.first() else {
        if !seen.is_empty() {
            findings.push(Finding::ok(
                Category::Clocks,
                "clocks",
                format!(
                    "{} of those who renew Leases: none is off",
                    crate::plugin::text::count(seen.len(), "clock")
                ),
            ));
        }
        return findings;
    };
    let words = format!(
        "clocks that are off: {}",
        some(
            off.iter()
                .map(|(who, ahead)| format!("{who} is {}", in_words(*ahead)))
        )
    );
    let finding = match worst.as_secs().abs() >= FAR_OFF {
        true => Finding::failure(Category::Clocks, "clocks", words),
        false => Finding::warning(Category::Clocks, "clocks", words),
    };
    findings.push(
        finding
            .because("no loss is judged by the time of day; but certificates and tokens are, and so are the pauses between crashes, the ends of Tasks and the times in records")
            .remedy("switch time synchronisation on there")
            .command("timedatectl set-ntp true")
            .docs("plugin.md#clocks"),
    );
    findings
}

/// How far ahead the clock of a Lease's holder is, if that can still be told.
fn skew(lease: &Lease, now: Timestamp) -> Option<SignedDuration> {
    let (said, written) = (said(lease)?, renewed(lease)?);
    let recent = now.duration_since(written).as_secs() <= RECENT;
    recent.then(|| ahead(said, said, written))
}
