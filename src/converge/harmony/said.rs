//! From a step of the table that is a write to the verb that is said, and the words a log has for it.

use super::{LrpAction, TaskAction};
use crate::api::PortMapping;
use crate::converge::lrp::transition::{Instance, Verb as LrpVerb};
use crate::converge::task::transition::{Outcome, Verb as TaskVerb};

/// What is known of an instance when something is said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LrpFacts {
    /// Where it is reached.
    pub address: String,
    /// Its ports there.
    pub ports: Vec<PortMapping>,
    /// How it ended.
    pub end: String,
    /// Why its Cell took it away, where that is no wish of ours: the slot then waits before it is placed again.
    pub taken_away: Option<String>,
    /// Why a placement can't be taken on.
    pub refusal: String,
}

/// What is known of a run of a Task when something is said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFacts {
    /// How it ended, if that is known.
    pub outcome: Option<Outcome>,
    /// Why it failed, where it has no outcome.
    pub missing: String,
    /// Why a placement can't be taken on.
    pub refusal: String,
}

/// What is said of an instance of an ActualLRP, and the log's words for it. `None` where the step is no write.
pub fn lrp(
    action: LrpAction,
    instance: Instance,
    facts: LrpFacts,
) -> Option<(&'static str, LrpVerb)> {
    let LrpFacts {
        address,
        ports,
        end,
        taken_away,
        refusal,
    } = facts;
    let give_back = |instance, refused| LrpVerb::GiveBack { instance, refused };
    Some(match action {
        LrpAction::Claim => ("claimed", LrpVerb::Claim(instance)),
        LrpAction::ReportRunning => (
            "running",
            LrpVerb::Start {
                instance,
                address,
                ports,
            },
        ),
        LrpAction::ReportEvacuating => (
            "kept as evacuating",
            LrpVerb::Evacuate {
                instance,
                address,
                ports,
            },
        ),
        LrpAction::ReportCrash => (
            "reported as crashed",
            LrpVerb::Crash {
                instance,
                reason: end,
            },
        ),
        LrpAction::Unclaim => (
            "given back to be placed again",
            give_back(instance, taken_away),
        ),
        LrpAction::DropSuspect => ("dropped as suspect", give_back(instance, None)),
        LrpAction::DropEvacuating => ("dropped as evacuating", give_back(instance, None)),
        LrpAction::Refuse => ("refused", give_back(instance, Some(refusal))),
        LrpAction::Nothing
        | LrpAction::Reserve
        | LrpAction::Run
        | LrpAction::Stop
        | LrpAction::Delete
        | LrpAction::CreateRecord => return None,
    })
}

/// What is said of a run of a Task, and the log's words for it. `None` where the step is no write.
pub fn task(
    action: TaskAction,
    instance: Instance,
    facts: TaskFacts,
) -> Option<(&'static str, TaskVerb)> {
    let TaskFacts {
        outcome,
        missing,
        refusal,
    } = facts;
    let complete = |instance, outcome: Option<Outcome>| TaskVerb::Complete {
        instance,
        outcome: outcome.unwrap_or(Outcome::Failed(missing)),
    };
    Some(match action {
        TaskAction::Reject => (
            "rejected",
            TaskVerb::Reject {
                instance,
                reason: refusal,
            },
        ),
        TaskAction::ReportRunning => ("running", TaskVerb::Start { instance }),
        TaskAction::Complete => ("completed", complete(instance, outcome)),
        TaskAction::FailMissing => ("completed", complete(instance, None)),
        TaskAction::Nothing
        | TaskAction::Reserve
        | TaskAction::Delete
        | TaskAction::Run
        | TaskAction::Stop => return None,
    })
}
