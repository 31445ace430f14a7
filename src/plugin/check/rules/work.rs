//! Instances and Tasks: those without a place, those that crash again and again, those that wait.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::conditions::{self, SUCCEEDED};
use crate::api::{ActualLRP, ActualLRPState, Task, TaskState};
use crate::plugin::check::facts::{Facts, Words, namespace};
use crate::plugin::check::finding::{Category, Finding, some};
use crate::plugin::text::count;

/// An instance may take so long to be given a place, and a replacement to run.
const SOON: i64 = 60;

/// From the third crash in a row on an instance waits before it is started again.
const LOOP: i32 = 3;

/// So many wanted instances that do not run are an outage.
const MANY: usize = 5;

/// All about work.
pub fn work(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (words, now) = (&facts.words, facts.server.now());
    match &facts.lrps {
        Ok(lrps) => {
            findings.extend(placement(lrps, words, now));
            findings.extend(crashes(lrps, words));
            findings.extend(suspects(lrps, words, now));
            if findings.is_empty() {
                findings.push(Finding::ok(
                    Category::Work,
                    "instances",
                    format!(
                        "{}: each has a place, none crashes again and again",
                        count(lrps.len(), "instance")
                    ),
                ));
            }
        }
        Err(failure) => findings.push(Finding::unseen(
            Category::Work,
            "instances",
            "the instances",
            failure,
        )),
    }
    match &facts.tasks {
        Ok(all) => findings.push(tasks(all, words, now)),
        Err(failure) => findings.push(Finding::unseen(
            Category::Work,
            "tasks",
            "the Tasks",
            failure,
        )),
    }
    findings
}

fn full_name(object: &impl kube::Resource) -> String {
    format!("{}/{}", namespace(object), object.name_any())
}

fn trace(kind: &str, object: &impl kube::Resource, words: &Words) -> String {
    format!(
        "kubectl diego{} trace {kind}/{} -n {}",
        words.kubectl,
        object.name_any(),
        namespace(object)
    )
}

fn placement(lrps: &[ActualLRP], words: &Words, now: Timestamp) -> Option<Finding> {
    let waits = |lrp: &&ActualLRP| {
        let Some(status) = &lrp.status else {
            return false;
        };
        let since = status
            .state_transition_time
            .as_ref()
            .map(|time| now.duration_since(time.0).as_secs());
        let unplaced = status.state == ActualLRPState::Unclaimed && status.cell_name.is_none();
        unplaced && (status.placement_error.is_some() || since.is_some_and(|since| since > SOON))
    };
    let waiting: Vec<&ActualLRP> = lrps.iter().filter(waits).collect();
    let first = *waiting.first()?;
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for lrp in &waiting {
        let error = lrp
            .status
            .as_ref()
            .and_then(|status| status.placement_error.clone());
        let error =
            error.unwrap_or_else(|| "nobody has looked for one: no controller leads".into());
        reasons.entry(error).or_default().push(full_name(*lrp));
    }
    let why: Vec<String> = reasons
        .into_iter()
        .map(|(error, names)| format!("{error} ({})", some(names)))
        .collect();
    let message = format!("{} without a place", count(waiting.len(), "instance"));
    let finding = match waiting.len() >= MANY {
        true => Finding::failure(Category::Work, "placement", message),
        false => Finding::warning(Category::Work, "placement", message),
    };
    Some(
        finding
            .because(why.join("; "))
            .remedy("add Cells or room, or change what the work asks for; what each Cell has shows kubectl diego top")
            .command(trace("actuallrp", first, words))
            .docs("operating.md#where-an-instance-goes"),
    )
}

fn crashes(lrps: &[ActualLRP], words: &Words) -> Option<Finding> {
    let mut worst: BTreeMap<String, (&ActualLRP, i32)> = BTreeMap::new();
    for lrp in lrps {
        let Some(status) = &lrp.status else { continue };
        let crashes = status.crash_count.unwrap_or(0);
        if crashes >= LOOP && status.state != ActualLRPState::Running {
            let process = format!("{}/{}", namespace(lrp), lrp.spec.desired_lrp_name);
            let entry = worst.entry(process).or_insert((lrp, crashes));
            if crashes > entry.1 {
                *entry = (lrp, crashes);
            }
        }
    }
    let (_, (first, _)) = worst.iter().next()?;
    let names =
        some(worst.iter().map(|(process, (_, crashes))| {
            format!("{process} (crashed {crashes} times in a row)")
        }));
    let reason = first
        .status
        .as_ref()
        .and_then(|status| status.crash_reason.clone());
    Some(
        Finding::warning(Category::Work, "crashes", format!("{} crashing again and again: {names}", if worst.len() == 1 { "1 DesiredLRP is".into() } else { format!("{} DesiredLRPs are", worst.len()) }))
            .because(format!("the first one's last end: {}", reason.unwrap_or_else(|| "not told".into())))
            .remedy("look at what it writes and how it ends; it is started again by itself, after longer and longer pauses")
            .command(trace("actuallrp", *first, words))
            .docs("life-cycle.md#a-crash-loop"),
    )
}

fn suspects(lrps: &[ActualLRP], words: &Words, now: Timestamp) -> Option<Finding> {
    let old = lrps.iter().filter_map(|lrp| {
        let suspect = lrp.status.as_ref()?.suspect.as_ref()?;
        let since = suspect.since.as_ref()?.0;
        (now.duration_since(since).as_secs() > SOON)
            .then(|| (lrp, format!("{} on {}", full_name(lrp), suspect.cell_name)))
    });
    let old: Vec<_> = old.collect();
    let (first, _) = old.first()?;
    let names = some(old.iter().map(|(_, words)| words.clone()));
    let error = first
        .status
        .as_ref()
        .and_then(|status| status.placement_error.clone());
    Some(
        Finding::warning(
            Category::Work,
            "suspects",
            format!(
                "{} of lost Cells not replaced yet: {names}",
                count(old.len(), "instance")
            ),
        )
        .because(error.unwrap_or_else(|| "the replacement has a place and does not run yet".into()))
        .remedy("make room, mend the replacement, or say that the lost machine is off")
        .command(trace("actuallrp", *first, words))
        .docs("operating.md#what-must-not-run-twice"),
    )
}

fn tasks(tasks: &[Task], words: &Words, now: Timestamp) -> Finding {
    let waits = |task: &&Task| {
        let status = task.status.clone().unwrap_or_default();
        let since = status.state_transition_time.map(|time| time.0);
        let since = since.or_else(|| task.creation_timestamp().map(|time| time.0));
        status.state == TaskState::Pending
            && since.is_some_and(|since| now.duration_since(since).as_secs() > SOON)
    };
    let waiting: Vec<&Task> = tasks.iter().filter(waits).collect();
    let Some(first) = waiting.first() else {
        return Finding::ok(
            Category::Work,
            "tasks",
            format!("{}: none waits for long", count(tasks.len(), "Task")),
        );
    };
    let condition = first
        .status
        .as_ref()
        .and_then(|status| conditions::get(&status.conditions, SUCCEEDED));
    let why = condition.map_or_else(
        || "nobody has looked for a place: no controller leads".into(),
        |one| one.message.clone(),
    );
    Finding::warning(
        Category::Work,
        "tasks",
        format!(
            "{} for more than a minute: {}",
            pending(waiting.len()),
            some(waiting.iter().map(|task| full_name(*task)))
        ),
    )
    .because(format!("the first one: {why}"))
    .remedy("add Cells or room; a Task that waits too long is failed")
    .command(trace("task", *first, words))
    .docs("operating.md#tasks")
}

fn pending(number: usize) -> String {
    let verb = if number == 1 { "waits" } else { "wait" };
    format!("{} {verb}", count(number, "Task"))
}
