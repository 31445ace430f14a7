//! A controller's world without a controller: what the steps would do to records and Pods.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::{
    Deleting, Facts, Fresh, Local, PodRecord, Record, Step, WorkKey, WorkKind, decide,
};
use super::{at, read, read_task};
use crate::api::TaskState;
use crate::converge::life::Life;
use crate::converge::lrp::transition as lrp;
use crate::converge::task::transition as task;
use crate::converge::world::{Key, Lrp, TaskRecord, Version};

/// More steps than any pair needs.
const STEPS: usize = 12;

/// What the controller's world holds, without a controller.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) lrp: Option<Lrp>,
    pub(super) task: Option<TaskRecord>,
    pub(super) pods: Vec<PodRecord>,
    pub(super) local: BTreeMap<String, Local>,
    pub(super) life: Life,
    pub(super) scheduler: Option<&'static str>,
    /// The API server refuses to make Pods.
    pub(super) refuses: bool,
    /// It must not run twice.
    pub(super) strict: bool,
}

impl Model {
    fn work(&self) -> WorkKey {
        match self.is_task() {
            true => WorkKey::task(Key::new("default", "web-0")),
            false => WorkKey::lrp(Key::new("default", "web-0")),
        }
    }

    fn is_task(&self) -> bool {
        self.task.is_some() || self.pods.iter().any(|pod| pod.work.kind == WorkKind::Task)
    }

    fn record(&self) -> Record<'_> {
        match (&self.lrp, &self.task) {
            (Some(lrp), _) => Record::Lrp(lrp),
            (None, Some(task)) => Record::Task(task),
            (None, None) => Record::None,
        }
    }

    fn next(&self, fresh: &Fresh) -> Step {
        let pods: Vec<&PodRecord> = self.pods.iter().collect();
        decide(&Facts {
            work: &self.work(),
            record: self.record(),
            pods: &pods,
            local: &self.local,
            // Instances elsewhere, and earlier ones, are no matter here.
            life: &|cell, _| if cell == "a" { self.life } else { Life::Alive },
            epoch: &|cell| (cell == "a").then_some(12),
            start_timeout: Some(60),
            strict: self.strict,
            scheduler: self.scheduler,
            cell_of: &|node| (node == "n1").then(|| ("a".to_owned(), 12)),
            is_elsewhere: &|cell, node| cell == "a" && node != "n1",
            new_guid: "new",
            fresh,
            now: at(30),
        })
    }

    fn names(&self, guid: &str) -> bool {
        let lrp = self.lrp.iter().flat_map(|lrp| lrp.status.named());
        let mut guids = lrp.filter_map(|one| one.guid);
        let task = self.task.as_ref();
        let open = |task: &&TaskRecord| {
            matches!(task.status.state, TaskState::Pending | TaskState::Running)
        };
        let of_task = task
            .filter(open)
            .and_then(|task| task.status.instance_guid.as_deref());
        guids.any(|one| one == guid) || of_task == Some(guid)
    }

    /// Takes steps until there is none. Returns them.
    pub(super) fn settle(&mut self) -> Vec<Step> {
        let before = self.clone();
        let (mut fresh, mut steps) = (Fresh::default(), Vec::new());
        loop {
            let step = self.next(&fresh);
            if matches!(step, Step::Wait(_)) {
                return steps;
            }
            steps.push(step.clone());
            assert!(
                steps.len() <= STEPS,
                "goes in circles: {steps:#?}\nfrom {before:#?}"
            );
            match &step {
                Step::ReadRecord => fresh.record = true,
                Step::ReadPod(guid) => drop(fresh.pods.insert(guid.clone())),
                other => {
                    fresh = Fresh::default();
                    self.take(other, &before);
                }
            }
        }
    }

    /// What must not run twice gets no second Pod while one may run, nor any while its suspect is held.
    fn assert_alone(&self, guid: &str, before: &Model) {
        let mut others = self.pods.iter().filter(|pod| pod.guid != guid);
        let alone = others.all(|pod| pod.phase.is_over());
        assert!(!self.strict || alone, "two at once: {before:#?}");
    }

    /// What must not run twice has not ended while its Pod may run.
    fn assert_ended(&self, verb: &lrp::Verb, before: &Model) {
        let said = match verb {
            lrp::Verb::Crash { instance, .. } | lrp::Verb::GiveBack { instance, .. } => instance,
            _ => return,
        };
        let mut own = self.pods.iter().filter(|pod| pod.guid == said.guid);
        let ended = own.all(|pod| pod.phase.is_over());
        assert!(!self.strict || ended, "{verb:?} while it runs: {before:#?}");
    }

    fn take(&mut self, step: &Step, before: &Model) {
        let alive = matches!(self.life, Life::Alive | Life::Draining);
        match step {
            Step::SetAside(guid) => drop(self.local.insert(guid.clone(), Local::SetAside)),
            Step::Try(run) | Step::Create(run) if self.refuses => {
                assert!(alive, "{before:#?}");
                self.local
                    .insert(run.guid.clone(), Local::Refused("quota".into()));
            }
            Step::Try(run) => drop(self.local.insert(run.guid.clone(), Local::SetAside)),
            Step::Create(run) => {
                assert!(alive, "{before:#?}");
                assert!(self.pods.iter().all(|pod| pod.guid != run.guid));
                self.assert_alone(&run.guid, before);
                self.local.remove(&run.guid);
                let mut pod = match self.is_task() {
                    true => read_task(json!({})),
                    false => read(json!({})),
                };
                pod.uid = format!("pod-{}", run.guid);
                pod.guid = run.guid.clone();
                self.pods.push(pod);
            }
            Step::Pause(until) => drop(self.local.insert(String::new(), Local::Paused(*until))),
            Step::CreateUnbound(guid) if self.refuses => {
                let refused = Local::Refused("quota".into());
                self.local.insert(guid.clone(), refused);
            }
            Step::CreateUnbound(guid) => {
                self.assert_alone(guid, before);
                let open = |pod: &PodRecord| pod.cell.is_none() && pod.node.is_none();
                let mut ours = self.pods.iter().filter(|pod| pod.owner == "lrp-1");
                assert!(!ours.any(open), "two at once: {before:#?}");
                self.local.remove(guid);
                let mut pod = match self.is_task() {
                    true => read_task(json!({})),
                    false => read(json!({})),
                };
                pod.uid = format!("pod-{guid}");
                (pod.guid, pod.cell, pod.node) = (guid.clone(), None, None);
                self.pods.push(pod);
            }
            Step::NoteCrash { guid, words } => {
                assert!(self.strict, "{before:#?}");
                let crashed = Local::Crashed(words.clone());
                self.local.insert(guid.clone(), crashed);
            }
            Step::Forget(guid) => drop(self.local.remove(guid)),
            Step::Delete { guid, force, .. } => {
                let retired = |pod: &PodRecord| pod.guid == *guid && pod.owner != "lrp-1";
                let kept = !alive && self.names(guid) && !self.pods.iter().any(retired);
                assert!(!kept, "its record still names it: {before:#?}");
                let there = |pod: &PodRecord| pod.guid == *guid && pod.cell.is_some();
                let hurries = self.life == Life::Lost && self.pods.iter().any(there);
                assert!(*force || !hurries, "{before:#?}");
                let stays = |pod: &PodRecord| pod.guid != *guid || (!force && !pod.phase.is_over());
                self.pods.retain(stays);
                let grace = Deleting {
                    until: at(60),
                    grace: 30,
                };
                let left = self.pods.iter_mut().filter(|pod| pod.guid == *guid);
                left.for_each(|pod| {
                    assert_eq!(pod.deleting, None, "deleted twice: {before:#?}");
                    pod.deleting = Some(grace);
                });
            }
            Step::Lrp { verb, .. } => {
                // That it waits is said of no Cell.
                let waits = matches!(verb, lrp::Verb::Place { place: Err(_), .. });
                let may = alive || waits;
                assert!(may, "{verb:?} of a life that is over: {before:#?}");
                self.assert_ended(verb, before);
                let lrp = self.lrp.as_mut().expect("a record is written");
                let next = lrp::apply(&lrp.status, verb, at(30));
                let next = next.unwrap_or_else(|no| panic!("{no}: {verb:?} on {before:#?}"));
                assert_ne!(next, lrp.status, "nothing is said twice: {before:#?}");
                lrp.status = next;
            }
            Step::Task { verb, .. } => {
                // What a scheduler sent to no living Cell can't be there.
                let fails = matches!(verb, task::Verb::Fail { .. }) && self.scheduler.is_some();
                assert!(
                    alive || fails || matches!(verb, task::Verb::Place { place: Err(_) }),
                    "{verb:?} of a life that is over: {before:#?}"
                );
                let task = self.task.as_mut().expect("a record is written");
                let next = task::apply(&task.status, verb, 1, at(30));
                let next = next.unwrap_or_else(|no| panic!("{no}: {verb:?} on {before:#?}"));
                assert_ne!(next, task.status, "nothing is said twice: {before:#?}");
                task.status = next;
            }
            Step::Wait(_) | Step::ReadRecord | Step::ReadPod(_) => {}
        }
    }
}

pub(super) fn version(deleting: bool) -> Version {
    Version {
        uid: "lrp-1".into(),
        revision: 5,
        generation: 1,
        deleting,
    }
}
