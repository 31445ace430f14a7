//! The Cells: how many are there, which are gone or unsteady, and whether the loss of the largest could be borne.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::conditions::{self, READY};
use crate::api::{Cell, quantity};
use crate::converge::cell::{HELD_DOWN, MASS_LOSS_HELD};
use crate::converge::hold_down;
use crate::plugin::check::facts::{Facts, Words};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::text::{age, count};

/// All about Cells.
pub fn cells(facts: &Facts) -> Vec<Finding> {
    let cells = match &facts.cells {
        Ok(cells) => cells,
        Err(failure) => {
            return vec![Finding::unseen(
                Category::Cells,
                "cells",
                "the Cells",
                failure,
            )];
        }
    };
    let (words, now) = (&facts.words, facts.server.now());
    let mut findings = vec![enough(cells, words)];
    findings.extend(held(cells, words));
    findings.extend(missing(cells, words, now));
    findings.extend(flapping(cells, words, now));
    findings.extend(others(cells, words));
    findings.extend(headroom(cells, words));
    findings
}

/// Status, reason and message of the condition Ready.
fn ready(cell: &Cell) -> (&str, &str, &str) {
    let status = cell.status.as_ref();
    let ready = status.and_then(|status| conditions::get(&status.conditions, READY));
    ready.map_or(("Unknown", "PresenceUnknown", ""), |ready| {
        (&*ready.status, &*ready.reason, &*ready.message)
    })
}

fn with_reason<'a>(cells: &'a [Cell], reason: &str) -> Vec<&'a Cell> {
    cells
        .iter()
        .filter(|cell| ready(cell).1 == reason)
        .collect()
}

fn names(cells: &[&Cell]) -> String {
    some(cells.iter().map(|cell| cell.name_any()))
}

fn enough(cells: &[Cell], words: &Words) -> Finding {
    let is_ready = cells.iter().filter(|cell| ready(cell).0 == "True").count();
    let logs = format!(
        "kubectl{} logs --all-namespaces --selector app.kubernetes.io/component=rep --tail 20 --prefix",
        words.kubectl
    );
    match (cells.len(), is_ready) {
        (0, _) => Finding::failure(Category::Cells, "cells", "there are no Cells")
            .because("no rep has registered: nothing can be placed")
            .remedy("see that reps run, and look at their log")
            .command(logs)
            .docs("operating.md#cells"),
        (all, 0) => Finding::failure(
            Category::Cells,
            "cells",
            format!("none of {} is Ready", count(all, "Cell")),
        )
        .because("nothing can be placed")
        .remedy("what each lacks is told below and in its condition")
        .command(format!(
            "kubectl{} get cells.diego.cloudfoundry.org",
            words.kubectl
        ))
        .docs("operating.md#cells"),
        (all, some) => {
            let cordoned = cells
                .iter()
                .filter(|cell| matches!(ready(cell).1, "Unschedulable" | "NodeUnschedulable"))
                .count();
            let cordoned = if cordoned > 0 {
                format!(", {cordoned} of them cordoned")
            } else {
                String::new()
            };
            Finding::ok(
                Category::Cells,
                "cells",
                format!("{some} of {} are Ready{cordoned}", count(all, "Cell")),
            )
        }
    }
}

fn held(cells: &[Cell], words: &Words) -> Option<Finding> {
    let held = with_reason(cells, MASS_LOSS_HELD);
    let first = held.first()?;
    Some(
        Finding::failure(Category::Cells, "guard", format!("the mass-loss guard holds: {} are silent: {}", count(held.len(), "Cell"), names(&held)))
            .because("so many are gone at once that the presence store or the network is doubted, and not the Cells: nothing of them is moved")
            .remedy("mend the store or the network, then it ends by itself. Only where a Cell is really lost say so, for each")
            .command(format!(
                "kubectl{} annotate cell.diego.cloudfoundry.org {} {}=true",
                words.kubectl,
                first.name_any(),
                crate::api::ANNOTATION_CONFIRM_LOSS
            ))
            .docs("runbooks/DiegoCellLossesHeld.md"),
    )
}

fn missing(cells: &[Cell], words: &Words, now: Timestamp) -> Option<Finding> {
    let missing = with_reason(cells, "PresenceExpired");
    let first = missing.first()?;
    let since = missing.iter().map(|cell| {
        let lost = cell
            .status
            .as_ref()
            .and_then(|status| status.last_recovery.as_ref()?.lost_time.as_ref());
        let since = lost.map_or_else(String::new, |lost| format!(" for {}", age(lost.0, now)));
        format!("{}{since}", cell.name_any())
    });
    Some(
        Finding::warning(Category::Cells, "missing", format!("{} lost: {}", was(missing.len()), some(since)))
            .because("their work runs elsewhere as far as there is room; they take it up again by themselves when their rep registers")
            .remedy("look at the machine; a Cell that will never come back may be deleted. What happened to it shows")
            .command(format!("kubectl diego{} trace cell/{}", words.kubectl, first.name_any()))
            .docs("runbooks/DiegoCellsMissing.md"),
    )
}

fn was(number: usize) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", count(number, "Cell"))
}

fn flapping(cells: &[Cell], words: &Words, now: Timestamp) -> Option<Finding> {
    let unsteady = cells.iter().filter_map(|cell| {
        let status = cell.status.as_ref()?;
        let until = hold_down::until(status, now);
        let flaps = status
            .flaps
            .filter(|flaps| hold_down::pause(*flaps).is_some())?;
        let held = until.map_or_else(String::new, |until| {
            format!(", no new work for {}", age(now, until))
        });
        Some((
            cell,
            format!("{} (lost {flaps} times{held})", cell.name_any()),
        ))
    });
    let unsteady: Vec<_> = unsteady.collect();
    let (first, _) = unsteady.first()?;
    let names = some(unsteady.iter().map(|(_, words)| words.clone()));
    Some(
        Finding::warning(Category::Cells, "flapping", format!("{} flapping: {names}", was(unsteady.len())))
            .because("a Cell that is lost and comes back again and again keeps what it runs and takes no new work for a while, longer each time")
            .remedy("look why: the machine's load, its network, its clock, a rep that is restarted")
            .command(format!("kubectl diego{} trace cell/{}", words.kubectl, first.name_any()))
            .docs("operating.md#cells-that-flap"),
    )
}

/// Whatever else keeps Cells from work.
fn others(cells: &[Cell], words: &Words) -> Vec<Finding> {
    let mut by_reason: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        let (status, reason, _) = ready(cell);
        let told = [
            MASS_LOSS_HELD,
            HELD_DOWN,
            "PresenceExpired",
            "Evacuating",
            "Evacuated",
            "Unschedulable",
        ];
        if status != "True" && !told.contains(&reason) {
            by_reason.entry(reason).or_default().push(cell);
        }
    }
    let told = by_reason.into_iter().map(|(reason, cells)| {
        let message = ready(cells[0]).2;
        let why = if message.is_empty() {
            "its rep has not registered yet"
        } else {
            message
        };
        Finding::warning(
            Category::Cells,
            "not-ready",
            format!("{} {reason}: {}", was(cells.len()), names(&cells)),
        )
        .because(why)
        .remedy("look at the machine, and at the log of its rep")
        .command(format!(
            "kubectl diego{} trace cell/{}",
            words.kubectl,
            cells[0].name_any()
        ))
        .docs("operating.md#cells")
    });
    told.collect()
}

/// What is used would fit into the rest if the largest Cell were lost.
fn headroom(cells: &[Cell], words: &Words) -> Option<Finding> {
    let ready: Vec<&Cell> = cells
        .iter()
        .filter(|cell| ready(cell).0 == "True")
        .collect();
    if ready.len() < 2 {
        return (ready.len() == 1).then(|| {
            Finding::warning(Category::Cells, "headroom", "one Cell alone is Ready")
                .because("when it is lost, its work has nowhere to go")
                .remedy("add a Cell, in another zone if there is one")
                .docs("install.md#before-production")
        });
    }
    let short: Vec<&str> = ["memory", "disk", "containers"]
        .into_iter()
        .enumerate()
        .filter(|(part, _)| {
            let all = ready.iter().map(|cell| parts(cell)[*part]);
            let used: i128 = all.clone().map(|(used, _)| i128::from(used)).sum();
            let there: i128 = all.clone().map(|(_, there)| i128::from(there)).sum();
            let largest = all.map(|(_, there)| i128::from(there)).max();
            used > there - largest.unwrap_or(0)
        })
        .map(|(_, name)| name)
        .collect();
    Some(match short.is_empty() {
        true => Finding::ok(
            Category::Cells,
            "headroom",
            "what runs would have room without the largest Cell",
        ),
        false => Finding::warning(
            Category::Cells,
            "headroom",
            format!(
                "without its largest Cell there is not enough {}",
                short.join(" and ")
            ),
        )
        .because("if it is lost, some of its work waits for room")
        .remedy("add Cells, or ask for less; what each has shows")
        .command(format!("kubectl diego{} top", words.kubectl))
        .docs("install.md#before-production"),
    })
}

/// What is used of a Cell's memory, disk and containers, and what there is.
fn parts(cell: &Cell) -> [(i64, i64); 3] {
    let bytes = |text: &str| quantity::bytes(text).unwrap_or(0);
    let status = cell.status.as_ref();
    let used = status.and_then(|status| status.allocated.as_ref());
    let all = &cell.spec.capacity;
    [
        (
            used.map_or(0, |used| bytes(&used.memory)),
            bytes(&all.memory),
        ),
        (used.map_or(0, |used| bytes(&used.disk)), bytes(&all.disk)),
        (
            used.map_or(0, |used| used.containers.into()),
            all.containers.into(),
        ),
    ]
}
