//! The harmonisation table of a rep: what it has, compared with what the record says, gives one next step.
//!
//! Every step is either one write to the record or one act on the container, never both: after it the pair is
//! looked up again, so that a lost answer, a conflict or a restart in between needs no code of its own.
//! "Mine" is a record that names this Cell *and* this container's instance guid.
//!
//! Differences from Diego's table come from Kubernetes: a controller assigns a Cell before the rep has anything
//! (Unclaimed and mine, without a container), one object holds the ordinary, the suspect and the evacuating
//! instance, and a missing record may still be wanted.

pub mod said;
pub mod view;

/// What the record of an ActualLRP says about one instance guid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LrpRecord {
    /// There is no record.
    None {
        /// Whether the DesiredLRP still wants this index: then the record was lost, not taken away.
        desired: bool,
    },
    /// Placed here and not yet claimed.
    UnclaimedMine,
    /// Not placed, or placed elsewhere, or here as another instance, and not yet claimed.
    UnclaimedOther {
        /// Whether yet another instance is kept as the Evacuating one.
        evacuating: bool,
    },
    /// Claimed by this instance.
    ClaimedMine,
    /// Claimed by another instance.
    ClaimedOther {
        /// Whether yet another instance is kept as the Evacuating one.
        evacuating: bool,
    },
    /// Running as this instance.
    RunningMine,
    /// Running as another instance.
    RunningOther,
    /// Crashed: on no Cell.
    Crashed,
    /// This instance is kept as the Suspect one until its replacement runs.
    SuspectMine,
    /// This instance is kept as the Evacuating one until its replacement runs.
    EvacuatingMine,
}

/// What the record of a Task says about one instance guid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskRecord {
    /// There is no record.
    None,
    /// Placed here and not yet started.
    PendingMine,
    /// Not placed, or placed elsewhere, or here under another guid.
    PendingOther,
    /// Running as this one.
    RunningMine,
    /// Running as this one, and somebody asked to cancel it.
    CancelledMine,
    /// Running as another one.
    RunningOther,
    /// Completed or Resolving: its outcome stands.
    Ended,
}

/// How far this rep's container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerState {
    /// There is none.
    None,
    /// Room is set aside; no process was ever started.
    Reserved,
    /// Its process was started and is not ready yet.
    Starting,
    /// Its process is ready.
    Running,
    /// It was told to stop and is not gone yet.
    Stopping,
    /// It ended because the rep stopped it.
    CompletedShutdown,
    /// It ended by itself, or never came up.
    CompletedCrashed,
}

/// Whether this rep takes on work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It does.
    Ordinary,
    /// It is shutting down on purpose: nothing new starts here, and what others have taken over stops.
    Draining,
}

/// The one next step for an instance of an ActualLRP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LrpAction {
    /// All is as it should be, or there is nothing to do but wait.
    Nothing,
    /// Container: set room aside for it.
    Reserve,
    /// Record: Unclaimed -> Claimed.
    Claim,
    /// Container: start the process.
    Run,
    /// Record: -> Running, with address and ports; the Suspect and the Evacuating instance are dropped.
    ReportRunning,
    /// Record: this instance is kept as the Evacuating one, with address and ports, until its replacement runs.
    ReportEvacuating,
    /// Record: create it again; the instance is reported into it next.
    CreateRecord,
    /// Record: -> Crashed.
    ReportCrash,
    /// Record: -> Unclaimed on no Cell, so that it is placed again.
    Unclaim,
    /// Record: -> Unclaimed on no Cell, with the reason why it can't be here.
    Refuse,
    /// Record: drop the Suspect instance, which is this one and has ended.
    DropSuspect,
    /// Record: drop the Evacuating instance, which is this one and has ended.
    DropEvacuating,
    /// Container: stop the process.
    Stop,
    /// Container: forget it.
    Delete,
}

/// The one next step for a Task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskAction {
    /// All is as it should be, or there is nothing to do but wait.
    Nothing,
    /// Container: set room aside for it.
    Reserve,
    /// Record: Pending -> Running. Always before the process starts: a Task runs at most once.
    ReportRunning,
    /// Container: start the process.
    Run,
    /// Record: Running -> Completed with the outcome of the container.
    Complete,
    /// Record: Running -> Completed, failed: "task container does not exist", or "task was cancelled".
    FailMissing,
    /// Record: -> Pending on no Cell, with the reason why it can't be here.
    Reject,
    /// Container: stop the process.
    Stop,
    /// Container: forget it.
    Delete,
}

/// The next step for an instance of an ActualLRP.
pub fn lrp(record: LrpRecord, container: ContainerState, mode: Mode) -> LrpAction {
    use ContainerState as C;
    use LrpAction as A;
    use LrpRecord as R;
    use Mode::{Draining, Ordinary};
    match (container, record) {
        // A container that is being stopped goes on ending, whatever the record says; then it is looked at again.
        (
            C::Stopping,
            R::None { .. }
            | R::UnclaimedMine
            | R::UnclaimedOther { .. }
            | R::ClaimedMine
            | R::ClaimedOther { .. },
        ) => A::Nothing,
        (
            C::Stopping,
            R::RunningMine | R::RunningOther | R::Crashed | R::SuspectMine | R::EvacuatingMine,
        ) => A::Nothing,

        (C::None, R::UnclaimedMine) => match mode {
            Ordinary => A::Reserve,
            Draining => A::Refuse,
        },
        (C::None, R::ClaimedMine | R::RunningMine) => A::Unclaim,
        (C::None, R::SuspectMine) => A::DropSuspect,
        (C::None, R::EvacuatingMine) => A::DropEvacuating,
        (
            C::None,
            R::None { .. }
            | R::UnclaimedOther { .. }
            | R::ClaimedOther { .. }
            | R::RunningOther
            | R::Crashed,
        ) => A::Nothing,

        (C::Reserved, R::UnclaimedMine) => match mode {
            Ordinary => A::Claim,
            Draining => A::Refuse,
        },
        (C::Reserved, R::ClaimedMine) => match mode {
            Ordinary => A::Run,
            Draining => A::Unclaim,
        },
        // Can't be by any way of this rep; the instance never ran, so it starts over.
        (C::Reserved, R::RunningMine) => A::Unclaim,
        (C::Reserved, R::SuspectMine) => A::DropSuspect,
        (C::Reserved, R::EvacuatingMine) => A::DropEvacuating,
        (
            C::Reserved,
            R::None { .. }
            | R::UnclaimedOther { .. }
            | R::ClaimedOther { .. }
            | R::RunningOther
            | R::Crashed,
        ) => A::Delete,

        (C::Starting, R::UnclaimedMine) => match mode {
            Ordinary => A::Claim,
            Draining => A::Stop,
        },
        (C::Starting, R::ClaimedMine) => match mode {
            Ordinary => A::Nothing,
            // Not ready yet: it is quicker elsewhere.
            Draining => A::Stop,
        },
        (C::Starting, R::RunningMine | R::SuspectMine | R::EvacuatingMine) => A::Nothing,
        (
            C::Starting,
            R::None { .. }
            | R::UnclaimedOther { .. }
            | R::ClaimedOther { .. }
            | R::RunningOther
            | R::Crashed,
        ) => A::Stop,

        // Survives a purged store.
        (C::Running, R::None { desired: true }) => match mode {
            Ordinary => A::CreateRecord,
            Draining => A::Stop,
        },
        (C::Running, R::None { desired: false }) => A::Stop,
        // A running instance beats a mere plan or claim to run it elsewhere; one that is to leave serves until then.
        (C::Running, R::UnclaimedOther { evacuating } | R::ClaimedOther { evacuating }) => {
            match (mode, evacuating) {
                (Ordinary, _) => A::ReportRunning,
                (Draining, false) => A::ReportEvacuating,
                (Draining, true) => A::Stop,
            }
        }
        (C::Running, R::Crashed) => match mode {
            Ordinary => A::ReportRunning,
            Draining => A::Stop,
        },
        (C::Running, R::UnclaimedMine | R::ClaimedMine) => A::ReportRunning,
        (C::Running, R::RunningMine | R::SuspectMine | R::EvacuatingMine) => A::Nothing,
        (C::Running, R::RunningOther) => A::Stop,

        (C::CompletedShutdown, R::UnclaimedMine | R::ClaimedMine | R::RunningMine) => A::Unclaim,
        // The process came up, as far as anybody knows, and went down: that is a crash even where its claim or
        // its running never got through.
        (C::CompletedCrashed, R::ClaimedMine | R::RunningMine) => A::ReportCrash,
        // Unclaimed never becomes Crashed: it is placed again.
        (C::CompletedCrashed, R::UnclaimedMine) => A::Unclaim,
        (C::CompletedShutdown | C::CompletedCrashed, R::SuspectMine) => A::DropSuspect,
        (C::CompletedShutdown | C::CompletedCrashed, R::EvacuatingMine) => A::DropEvacuating,
        (
            C::CompletedShutdown | C::CompletedCrashed,
            R::None { .. }
            | R::UnclaimedOther { .. }
            | R::ClaimedOther { .. }
            | R::RunningOther
            | R::Crashed,
        ) => A::Delete,
    }
}

/// The same for an instance that must not run twice: on a Cell that is drained it is stopped as soon as its record has
/// given it up, for nothing replaces it before.
pub fn strict_lrp(record: LrpRecord, container: ContainerState, mode: Mode) -> LrpAction {
    use ContainerState as C;
    match (container, record, mode) {
        (C::Starting | C::Running, LrpRecord::SuspectMine, Mode::Draining) => LrpAction::Stop,
        (_, _, Mode::Ordinary | Mode::Draining) => lrp(record, container, mode),
    }
}

/// The next step for a Task.
pub fn task(record: TaskRecord, container: ContainerState, mode: Mode) -> TaskAction {
    use ContainerState as C;
    use Mode::{Draining, Ordinary};
    use TaskAction as A;
    use TaskRecord as R;
    match (container, record) {
        (C::Stopping, R::None | R::PendingMine | R::PendingOther | R::RunningMine) => A::Nothing,
        (C::Stopping, R::CancelledMine | R::RunningOther | R::Ended) => A::Nothing,

        (C::None, R::PendingMine) => match mode {
            Ordinary => A::Reserve,
            Draining => A::Reject,
        },
        (C::None, R::RunningMine | R::CancelledMine) => A::FailMissing,
        (C::None, R::None | R::PendingOther | R::RunningOther | R::Ended) => A::Nothing,

        (C::Reserved, R::PendingMine) => match mode {
            Ordinary => A::ReportRunning,
            Draining => A::Reject,
        },
        // Its one run is spent by the record already, so it is used, even while draining.
        (C::Reserved, R::RunningMine) => A::Run,
        (C::Reserved, R::CancelledMine) => A::FailMissing,
        (C::Reserved, R::None | R::PendingOther | R::RunningOther | R::Ended) => A::Delete,

        // It runs, so nobody else may start it.
        (C::Starting | C::Running, R::PendingMine | R::PendingOther) => A::ReportRunning,
        (C::Starting | C::Running, R::RunningMine) => A::Nothing,
        (C::Starting | C::Running, R::None | R::CancelledMine | R::RunningOther | R::Ended) => {
            A::Stop
        }

        // It ran: that must be said before it can be said how it ended.
        (C::CompletedShutdown | C::CompletedCrashed, R::PendingMine | R::PendingOther) => {
            A::ReportRunning
        }
        (C::CompletedShutdown | C::CompletedCrashed, R::RunningMine | R::CancelledMine) => {
            A::Complete
        }
        (C::CompletedShutdown | C::CompletedCrashed, R::None | R::RunningOther | R::Ended) => {
            A::Delete
        }
    }
}

/// Whether a container may be lost by acting on a stale record: then the record is read once more, and decided
/// on again, before the act.
pub fn wants_live_read(container: ContainerState, stops_or_creates: bool) -> bool {
    match container {
        ContainerState::Starting | ContainerState::Running => stops_or_creates,
        ContainerState::None | ContainerState::Reserved | ContainerState::Stopping => false,
        ContainerState::CompletedShutdown | ContainerState::CompletedCrashed => false,
    }
}

/// Whether an instance that must not run twice is claimed once more before it is started: one that was recorded under
/// another epoch of its Cell than `epoch` may have been given to somebody else since, or still be, by a controller that
/// knows of that epoch's loss and not of the Cell's return.
pub fn claims_before_run(recorded: Option<i64>, epoch: Option<i64>) -> bool {
    recorded.is_none() || recorded != epoch
}

#[cfg(test)]
mod tests;
