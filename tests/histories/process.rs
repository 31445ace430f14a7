//! Processes: they start, get ready, end by themselves or are told to.

use diego_operator::converge::harmony::ContainerState;
use diego_operator::converge::task::transition::Outcome;

use crate::faults::Mutation;
use crate::history::{Event, Sim};
use crate::rep::{Process, Took};
use crate::store::Kind;

impl Sim {
    /// Starts the process of a container for which room is set aside. Not without a presence.
    pub fn run_container(&mut self, rep: usize, guid: &str) -> Took {
        if self.reps[rep].stamp().is_none() {
            return Took::Nothing;
        }
        let calm = self.calm;
        let (life, now) = (self.reps[rep].life, self.now);
        let Some(container) = self.reps[rep].containers.get_mut(guid) else {
            return Took::Nothing;
        };
        container.state = ContainerState::Starting;
        let is_task = container.work.0 == Kind::Task;
        let name = format!("{} of {:?}", container.work.1, container.owner);
        let started = self.observer.process_started(rep, guid, container, now);
        let process = |event| Event::Process(rep, life, guid.to_owned(), event);
        let ready = now
            + if is_task {
                1
            } else {
                self.rng.between(50, 3000)
            };
        self.schedule(ready, process(Process::Ready));
        // Instances crash now and then; Tasks end.
        let ends = if is_task {
            let well = self.rng.per_mille(800);
            Some((self.rng.between(100, 15_000), well))
        } else if !calm && self.rng.per_mille(self.crashes) {
            Some((self.rng.between(10, 12_000), false))
        } else {
            None
        };
        if let Some((after, well)) = ends {
            self.schedule(now + after, process(Process::Ended { well }));
        }
        self.log(|| format!("process of {name} as {guid} starts on cell {rep}"));
        if let Err(violation) = started {
            self.violated(violation);
        }
        Took::Local
    }

    pub fn stop_container(&mut self, rep: usize, guid: &str) -> Took {
        if self.breaks(Mutation::NeverStop) {
            return Took::Nothing;
        }
        let now = self.now;
        let Some(container) = self.reps[rep].containers.get_mut(guid) else {
            return Took::Nothing;
        };
        if matches!(
            container.state,
            ContainerState::Starting | ContainerState::Running
        ) {
            container.state = ContainerState::Stopping;
            let life = self.reps[rep].life;
            let ended = Event::Process(rep, life, guid.to_owned(), Process::Ended { well: false });
            let after = self.rng.between(10, 1500);
            self.schedule(now + after, ended);
            self.observer.process_stopping(guid);
            self.log(|| format!("process {guid} is told to stop on cell {rep}"));
        }
        Took::Local
    }

    pub fn delete_container(&mut self, rep: usize, guid: &str) -> Took {
        match self.reps[rep].containers.remove(guid) {
            Some(_) => Took::Local,
            None => Took::Nothing,
        }
    }

    pub fn process_changed(&mut self, rep: usize, guid: &str, event: Process) {
        let Some(container) = self.reps[rep].containers.get_mut(guid) else {
            return;
        };
        let work = container.work.clone();
        match (event, container.state) {
            (Process::Ready, ContainerState::Starting) => container.state = ContainerState::Running,
            (
                Process::Ended { well },
                state @ (ContainerState::Starting
                | ContainerState::Running
                | ContainerState::Stopping),
            ) => {
                let stopped = state == ContainerState::Stopping;
                container.state = if stopped {
                    ContainerState::CompletedShutdown
                } else {
                    ContainerState::CompletedCrashed
                };
                container.outcome = Some(match (stopped, well) {
                    (true, _) if container.cancelled => {
                        Outcome::Failed("task was cancelled".into())
                    }
                    (false, true) => Outcome::Succeeded(None),
                    (_, _) => Outcome::Failed("exited with status 1".into()),
                });
                self.observer.process_ended(guid);
                self.coverage.add(
                    if stopped {
                        "processes stopped"
                    } else {
                        "processes ended"
                    },
                    1,
                );
                self.stimulus();
                self.log(|| format!("process {guid} ended on cell {rep}"));
            }
            (_, _) => return,
        }
        self.settle(rep, &work, false, None);
    }
}
