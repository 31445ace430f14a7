//! Labels, and every value that they can have: few, known before, and never the name of an object.

use prometheus_client::encoding::EncodeLabelSet;

/// The reconcilers, as the label `controller` names them.
pub const CONTROLLERS: [&str; 3] = ["cell", "desiredlrp", "task"];

/// Label set with the name of a reconciler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabel {
    /// cell, desiredlrp or task.
    pub controller: &'static str,
}

/// Label set of a reconcile's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// cell, desiredlrp or task.
    pub controller: &'static str,
    /// requeue_after or error: every reconcile asks to be run again, as the safety net.
    pub result: &'static str,
}

/// Label set with what noticed a loss.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// watch, timer or resync.
    pub source: &'static str,
}

/// Label set with an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What came of it.
    pub outcome: &'static str,
}

/// Label set with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// Label set of a watch that was begun again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabel {
    /// What is watched: Presence, or a kind of object.
    pub kind: &'static str,
    /// Why it was begun again.
    pub reason: &'static str,
}

/// Label set of a convergence run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TriggerLabel {
    /// resync, startup or leader.
    pub trigger: &'static str,
}

/// Label set of a correction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// One of [`CORRECTIONS`].
    pub kind: &'static str,
}

/// Label set of a completion callback.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallbackLabel {
    /// What came of it.
    pub result: &'static str,
}

/// Label set of an API request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabel {
    /// HTTP status, or `<error>` where there was none.
    pub code: String,
    /// HTTP method.
    pub method: String,
    /// The API server.
    pub host: String,
}

/// Label set of an API request's duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerbLabel {
    /// HTTP method.
    pub verb: String,
    /// The API server.
    pub host: String,
}

/// Outcomes of `diego_actuallrps_recovered_total`.
pub const RECOVERED: [&str; 4] = ["placed", "waiting", "conflict", "error"];

/// Results of `diego_task_callbacks_total`.
pub const CALLBACKS: [&str; 4] = ["delivered", "refused", "not_allowed", "unanswered"];

/// Outcomes of `diego_writes_total`.
pub const WRITES: [&str; 5] = ["written", "conflict", "error", "timeout", "not_leading"];

/// Why a convergence run began.
pub const TRIGGERS: [&str; 3] = ["resync", "startup", "leader"];

/// What a convergence run corrects that an event should have told of: a Cell whose loss it found, and the writes.
pub const CORRECTIONS: [&str; 6] = [
    "CellMissing",
    "ActualLRPCreated",
    "ActualLRPChanged",
    "ActualLRPDeleted",
    "TaskChanged",
    "TaskDeleted",
];

/// What the controller watches for as long as it runs, as the label `kind` of restarts.
pub const WATCHED: [&str; 5] = ["Presence", "Cell", "DesiredLRP", "ActualLRP", "Task"];

/// Why a watch was restarted.
pub const WATCH_RESTARTS: [&str; 4] = ["compacted", "error", "closed", "silent"];
