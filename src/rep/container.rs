//! What the rep has: one entry per instance guid, from the room set aside for it to its last log line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::outcome::{End, Outcome, task_outcome};
use super::ports::Ports;
use super::process::{Handle, working_directory};
use super::records::{Key, Kind};
use super::store::Slot;
use super::workdir::InstanceDir;
use crate::api::template::Resources;
use crate::converge::harmony::ContainerState;
use crate::converge::process_spec::ProcessSpec;

/// How far a container is.
#[derive(Debug)]
pub enum Phase {
    /// Room is set aside.
    Reserved,
    /// Its process is started and not ready.
    Starting(Handle),
    /// Its process is ready.
    Running(Handle),
    /// It was told to stop.
    Stopping(Handle),
    /// It has ended.
    Completed {
        /// How.
        end: End,
        /// Whether the rep had told it to stop.
        stopped: bool,
    },
}

/// One instance of an ActualLRP, or one Task, on this machine.
#[derive(Debug)]
pub struct Container {
    /// Its record.
    pub key: Key,
    /// Its DesiredLRP's name, or the Task's own.
    pub process: String,
    /// Its index, where it is an ActualLRP's.
    pub index: Option<i32>,
    /// The uid of its record when room was set aside for it.
    pub uid: Option<String>,
    /// Somebody deleted its record: it stops, whatever a new record of the same name says.
    pub retired: bool,
    /// The uid of the DesiredLRP whose template it runs, where it is an ActualLRP's.
    pub owner: Option<String>,
    /// What it runs.
    pub spec: ProcessSpec,
    /// What it asks for.
    pub resources: Resources,
    /// Its ports.
    pub ports: Arc<Ports>,
    /// Whether it must not run twice, whatever that costs.
    pub strict: bool,
    /// How long it may take to be ready.
    pub start_timeout: Option<Duration>,
    /// The file a Task leaves its result in.
    pub result_file: Option<String>,
    /// Its directory, once it was started.
    pub dir: Option<InstanceDir>,
    /// How far it is.
    pub phase: Phase,
    /// Why the rep stopped it, in the words of a Task's failure reason.
    pub stop_reason: Option<&'static str>,
    /// How the Task ended. Read once: the file may change, what is told must not.
    pub outcome: Option<Outcome>,
}

impl Container {
    /// Its state, as the harmonisation table names it.
    pub fn state(&self) -> ContainerState {
        match &self.phase {
            Phase::Reserved => ContainerState::Reserved,
            Phase::Starting(_) => ContainerState::Starting,
            Phase::Running(_) => ContainerState::Running,
            Phase::Stopping(_) => ContainerState::Stopping,
            Phase::Completed { stopped: true, .. } => ContainerState::CompletedShutdown,
            Phase::Completed { stopped: false, .. } => ContainerState::CompletedCrashed,
        }
    }

    /// Where it is counted in the metric of containers.
    pub fn state_index(&self) -> usize {
        match &self.phase {
            Phase::Reserved => 0,
            Phase::Starting(_) => 1,
            Phase::Running(_) => 2,
            Phase::Stopping(_) => 3,
            Phase::Completed { .. } => 4,
        }
    }

    /// The slot that its record fills, if it is an ActualLRP's.
    pub fn slot(&self) -> Option<Slot> {
        Some(Slot {
            desired_lrp: self.process.clone(),
            owner: self.owner.clone()?,
            index: self.index?,
        })
    }

    /// Tells it to stop, if it runs. Returns whether it had not been told before.
    pub fn stop(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Reserved) {
            Phase::Starting(handle) | Phase::Running(handle) => {
                handle.stop();
                self.phase = Phase::Stopping(handle);
                true
            }
            other => {
                self.phase = other;
                false
            }
        }
    }

    /// Kills it if it has not ended after `grace`.
    pub fn kill_after(&self, grace: Duration) {
        if let Phase::Starting(handle) | Phase::Running(handle) | Phase::Stopping(handle) =
            &self.phase
        {
            let handle = handle.clone();
            tokio::spawn(async move {
                tokio::time::sleep(grace).await;
                handle.kill();
            });
        }
    }

    /// Its process is ready. A stop that came before stays.
    pub fn ready(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Reserved) {
            Phase::Starting(handle) => {
                self.phase = Phase::Running(handle);
                true
            }
            other => {
                self.phase = other;
                false
            }
        }
    }

    /// Its process has ended.
    pub fn ended(&mut self, end: End) {
        // Fenced it did not end by itself, whoever killed it: that is no crash.
        let stopped = matches!(self.phase, Phase::Stopping(_)) || end == End::Fenced;
        if self.key.kind == Kind::Task {
            let stop_reason = if stopped { self.stop_reason } else { None };
            let cwd = self
                .dir
                .as_ref()
                .map_or_else(PathBuf::new, |dir| working_directory(&self.spec, dir));
            self.outcome = Some(task_outcome(
                &end,
                stop_reason,
                self.result_file.as_deref(),
                &cwd,
            ));
        }
        self.phase = Phase::Completed { end, stopped };
    }

    /// Why it was taken away, where nobody asked for that.
    pub fn taken_away(&self) -> Option<String> {
        match &self.phase {
            Phase::Completed {
                end: End::Fenced, ..
            } => Some(End::Fenced.reason()),
            Phase::Completed { .. }
            | Phase::Reserved
            | Phase::Starting(_)
            | Phase::Running(_)
            | Phase::Stopping(_) => None,
        }
    }

    /// How it ended, in the words of its record.
    pub fn end_reason(&self) -> String {
        match &self.phase {
            Phase::Completed { end, .. } => end.reason(),
            Phase::Reserved | Phase::Starting(_) | Phase::Running(_) | Phase::Stopping(_) => {
                "has not ended".into()
            }
        }
    }
}
