//! One life of a rep: from the registration of its presence to its end, with one keeper and one actor.
//!
//! ```text
//! register ──> work ──> drain, when the rep is to stop or its Cell to be evacuated ──> give the presence back
//! ```

use std::convert::Infallible;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Setup};
use super::deadline_file::DeadlineFile;
use super::store::Store;
use super::witness::{Line, Witness};
use super::workdir::WorkDir;
use super::{OWN_PROGRAM, Rep, RepConfig, RepError, presence, procfs, watch};
use crate::api::ExecutorKind;
use crate::converge::fence;
use crate::presence::PresencePhase;
use crate::presence::identity::{Identity, Owner};
use crate::presence::keeper::{Keeper, KeeperControl, KeeperError, Registration};

/// Sightings that wait for the actor; the watches pause beyond that.
const SIGHTINGS: usize = 1024;

impl Rep {
    /// Registers, works, and leaves when the rep is to stop or the Cell to be evacuated. Once begun, leaving goes on
    /// to its end, whoever takes the evacuation back meanwhile: work that was moved away does not return.
    pub(super) async fn live(
        &self,
        work_dir: Option<WorkDir>,
        shutdown: &CancellationToken,
    ) -> Result<(), RepError> {
        let (leave, handover) = match self.config.executor {
            ExecutorKind::Process => (shutdown.child_token(), CancellationToken::new()),
            // Pods run on without a rep: the presence is left to its successor, or ends with its TTL.
            ExecutorKind::Pods => (CancellationToken::new(), shutdown.clone()),
        };
        tokio::select! {
            ended = self.keep_presence(work_dir, leave.clone(), handover) => ended,
            never = self.leave_when_asked(&leave) => match never {},
        }
    }

    async fn leave_when_asked(&self, leave: &CancellationToken) -> Infallible {
        self.cell.until_evacuate(true).await;
        tracing::info!(cell = self.config.cell_id, "spec.evacuate is true");
        leave.cancel();
        std::future::pending().await
    }

    async fn keep_presence(
        &self,
        work_dir: Option<WorkDir>,
        leave: CancellationToken,
        handover: CancellationToken,
    ) -> Result<(), RepError> {
        let config = &self.config;
        let incarnation = incarnation(config)?;
        let owner = match config.executor {
            ExecutorKind::Process => Owner::WorkDir(Identity::prepare(
                &config.work_dir,
                &config.cell_id,
                &incarnation,
            )?),
            ExecutorKind::Pods => Owner::Boot(incarnation.clone()),
        };
        let registration = Registration {
            cell_id: config.cell_id.clone(),
            incarnation,
            ttl: config.ttl,
            cells: self.cell.cells.clone(),
            known_epoch: self.cell.known_epoch.clone(),
            dead_epoch: self.cell.dead_epoch.clone(),
            fence: fences(config),
        };
        // The rest of what an earlier rep of this machine began; it must not look in between as if the Cell were back.
        let phase = match self.cell.is_to_evacuate() && self.has_pods() {
            true => {
                leave.cancel();
                PresencePhase::Draining
            }
            false => PresencePhase::Held,
        };
        let store = config.presence.clone();
        let keeper = Keeper::start_in(phase, store, registration, owner)?;
        let control = keeper.control;
        let (holder, ttl) = (keeper.holder, config.ttl.first());
        self.tell_witness(&Line::Holds { holder, ttl });
        let follow = presence::follow(keeper.reports, self.metrics.clone());
        let mut follower = tokio::spawn(follow);
        let failed = |ended: Result<Result<(), KeeperError>, tokio::task::JoinError>| match ended {
            Ok(Err(error)) => RepError::Presence(error),
            Ok(Ok(())) | Err(_) => RepError::Presence(KeeperError::Ended),
        };
        let files = config
            .fence
            .clone()
            .map(|files| DeadlineFile::start(files, config.ttl.least(), control.clone()));
        let deadline_file = files.transpose().map_err(|source| RepError::BootId {
            path: procfs::BOOT_ID.into(),
            source,
        })?;
        let mut keeping = control.keeping();
        tokio::select! {
            // Only whether: the value itself must not be borrowed across an await.
            registered = async { keeping.wait_for(|keeping| keeping.held).await.is_ok() } => {
                if !registered {
                    return Err(failed(follower.await));
                }
                // Nobody listens any more only when the program ends.
                let _ = self.ready.send(true);
                tokio::select! {
                    emptied = self.work(work_dir, control.clone(), leave) => if !emptied {
                        return Ok(());
                    },
                    () = handover.cancelled() => return self.hand_over(&control, deadline_file).await,
                    ended = &mut follower => return Err(failed(ended)),
                }
            }
            ended = &mut follower => return Err(failed(ended)),
            () = self.until_left_early(&leave) => {}
            () = handover.cancelled() => return Ok(()),
        }
        if give_back(control).await {
            self.tell_witness(&Line::Left);
        }
        // What it told last is measured before anything else is.
        let _ = follower.await;
        Ok(())
    }

    fn tell_witness(&self, line: &Line) {
        if let Some(witness) = &self.witness {
            witness.tell(line);
        }
    }

    /// Ends without giving the presence back, so that the next rep of this machine has a full TTL to take it over.
    async fn hand_over(
        &self,
        control: &KeeperControl,
        deadline_file: Option<DeadlineFile>,
    ) -> Result<(), RepError> {
        let cell = &self.config.cell_id;
        if let Some(file) = deadline_file {
            file.hand_over().await;
        }
        let renewed = matches!(control.renew().await, Ok(true));
        tracing::info!(
            cell,
            renewed,
            "stopping; the presence is left to the next rep of this machine"
        );
        Ok(())
    }

    /// Waits until this life is to end before it is registered. One that finishes an evacuation, while Pods of the
    /// machine run on, registers first: its presence keeps them alive until they have moved.
    async fn until_left_early(&self, leave: &CancellationToken) {
        leave.cancelled().await;
        if self.has_pods() {
            std::future::pending().await
        }
    }

    /// Whether Pods may be running here.
    fn has_pods(&self) -> bool {
        self.config.executor == ExecutorKind::Pods && self.cell.may_have_work()
    }

    /// Runs what is assigned here, and after `leave` until nothing of it is left; or, with executor Pods, until no more is
    /// waited for. Whether nothing is left: a presence that is given back says so, one that expires does not.
    async fn work(
        &self,
        work_dir: Option<WorkDir>,
        keeper: KeeperControl,
        leave: CancellationToken,
    ) -> bool {
        let config = &self.config;
        let Some(work_dir) = work_dir else {
            leave.cancelled().await;
            self.metrics.set_evacuating(true);
            return self.wait_until_moved_away(&keeper).await;
        };
        let store = Store::new(self.client.clone());
        let setup = Setup {
            cell: config.cell_id.clone(),
            // Registered just now: there is no work before that.
            first_epoch: keeper.keeping().borrow().epoch.unwrap_or(i64::MIN),
            dead_epoch: self.cell.dead_epoch.clone(),
            address: config.address.clone(),
            supervisor: OWN_PROGRAM.into(),
            hold: self.witness.as_ref().map(Witness::hold),
            work_dir,
            sync_interval: config.sync_interval,
            evacuation_timeout: config.evacuation_timeout,
            store,
            metrics: self.metrics.clone(),
        };
        let (seen, sightings) = mpsc::channel(SIGHTINGS);
        let watches = tokio::spawn(watch::run(
            self.client.clone(),
            config.cell_id.clone(),
            seen,
        ));
        Actor::new(setup, keeper)
            .run(sightings, leave, config.hurry.clone())
            .await;
        watches.abort();
        true
    }

    /// With executor Pods the controller moves the work; the rep only has to be there until that is done.
    async fn wait_until_moved_away(&self, keeper: &KeeperControl) -> bool {
        let config = &self.config;
        tracing::info!(
            cell = config.cell_id,
            "draining: waiting until the work has moved away"
        );
        if let Err(error) = keeper.set_phase(PresencePhase::Draining).await {
            tracing::warn!(%error, "the presence store was not told that this Cell drains");
        }
        let until = Instant::now() + config.evacuation_timeout;
        let emptied = tokio::select! {
            emptied = self.cell.until_empty(until) => emptied,
            () = config.hurry.cancelled() => false,
        };
        if !emptied {
            tracing::warn!(
                cell = config.cell_id,
                "the work was not moved away in time; the presence ends with its TTL, and the work is treated as lost"
            );
        }
        emptied
    }
}

/// Whether what must not run twice is killed here when the presence can't be renewed.
fn fences(config: &RepConfig) -> bool {
    match config.executor {
        // Each instance's supervisor does it.
        ExecutorKind::Process => fence::reach(config.ttl.least()).is_ok(),
        ExecutorKind::Pods => false,
    }
}

/// One life of the containers: processes die with the rep's, Pods with the machine.
fn incarnation(config: &RepConfig) -> Result<String, RepError> {
    let path = &config.boot_id_file;
    match config.executor {
        ExecutorKind::Process => Ok(uuid::Uuid::new_v4().to_string()),
        ExecutorKind::Pods => procfs::read_boot_id(path).map_err(|source| RepError::BootId {
            path: path.clone(),
            source,
        }),
    }
}

/// The presence goes last, when nothing runs here any more.
async fn give_back(control: KeeperControl) -> bool {
    match control.release().await {
        Ok(true) | Err(KeeperError::Ended) => return true,
        Ok(false) => tracing::warn!("the presence could not be given back; it ends with its TTL"),
        Err(error) => {
            tracing::warn!(%error, "the presence could not be given back; it ends with its TTL")
        }
    }
    false
}
