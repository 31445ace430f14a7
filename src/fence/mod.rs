//! `diego fence`: stops the Pods of Strict LRPs on this node when its Cell may be counted as lost.
//!
//! It runs beside the rep, in a container of its own, so that it works also when the rep hangs, is stopped or is dead. The
//! rep writes into a file until when the Cell is certainly alive; when that has passed, everything whose Pod carries
//! [`LABEL_POLICY`](crate::converge::pods::LABEL_POLICY) with the value Strict is killed through the node's container
//! runtime, which needs neither the kubelet nor the network. Read [`watch`] for the decision, [`cri`] for the runtime.

pub mod cri;
pub mod stamp;
pub mod watch;

mod pulse;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use crate::boottime::{self, Alarm};
use cri::{Cri, CriError, Round};
use pulse::{Look, Pulse};
use stamp::Deadline;
use watch::{Change, Order, Said, Watch};

/// How often the file is looked at, whatever it says: a deadline that was not there before is noticed so soon.
const LOOK: Duration = Duration::from_millis(500);

/// The pause between two looks at the runtime after the deadline: a Pod that starts then lives no longer.
const AGAIN: Duration = Duration::from_millis(250);

/// All that the fencer is told.
#[derive(Debug, Clone)]
pub struct FenceConfig {
    /// Where the rep writes its deadline.
    pub deadline_file: PathBuf,
    /// Where the fencer tells the rep that it is at work.
    pub ready_file: Option<PathBuf>,
    /// The socket of the container runtime, as `unix:///PATH`.
    pub cri_socket: String,
}

/// Why the fencer can't start.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The address of the runtime's socket can't be one.
    #[error(transparent)]
    Cri(#[from] CriError),
    /// The machine does not tell which boot it is in.
    #[error("the boot id of this machine can't be read: {0}; mount /proc")]
    BootId(std::io::Error),
    /// There is no timer.
    #[error("a timer of the boot's clock can't be made: {0}")]
    Alarm(std::io::Error),
}

/// Watches the deadline until `stop`, and then until nothing depends on it any more. `ready` tells whether the runtime
/// answers.
///
/// # Errors
/// When it can't start.
pub async fn run(
    config: FenceConfig,
    ready: channel::Sender<bool>,
    stop: CancellationToken,
) -> Result<(), FenceError> {
    let boot = crate::rep::procfs::boot_id().map_err(FenceError::BootId)?;
    let cri = Cri::new(&config.cri_socket)?;
    let look = Arc::new(Look::default());
    let pulse = Pulse {
        cri: cri.clone(),
        boot: boot.clone(),
        file: config.ready_file,
        look: look.clone(),
        ready,
    };
    let pulse = tokio::spawn(pulse.run());
    let fencer = Fencer {
        file: config.deadline_file,
        boot,
        cri,
        watch: Watch::default(),
        look,
        alarm: Alarm::new().map_err(FenceError::Alarm)?,
        trouble: None,
    };
    fencer.run(stop).await;
    pulse.abort();
    Ok(())
}

struct Fencer {
    file: PathBuf,
    boot: String,
    cri: Cri,
    watch: Watch,
    look: Arc<Look>,
    alarm: Alarm,
    /// What the runtime last complained about, lest it is told four times a second.
    trouble: Option<String>,
}

impl Fencer {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let now = boottime::now();
            self.look.was_at(now);
            let said = read(&self.file, &self.boot);
            let (order, change) = self.watch.look(said, now);
            if let Some(change) = change {
                self.tell(&change);
            }
            let until = match order {
                // Whoever promised that this fencer works has taken that back, or never did.
                Order::Idle if stop.is_cancelled() => return,
                Order::Idle => {
                    self.stop_met().await;
                    now.after(LOOK)
                }
                Order::Wait(deadline) => {
                    self.stop_met().await;
                    deadline.min(now.after(LOOK))
                }
                Order::Fence => match self.stop_all().await {
                    Some(0) if stop.is_cancelled() => return,
                    Some(0) | None => boottime::now().after(AGAIN),
                    // Whether they are gone is seen at once.
                    Some(_) => continue,
                },
            };
            if let Err(error) = self.alarm.set(until) {
                tracing::error!(%error, "the clock of the deadline can't be set");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tokio::select! {
                () = self.alarm.rings() => {}
                () = stop.cancelled(), if order == Order::Idle => {}
            }
        }
    }

    /// Stops what was met while fencing and has started something again since.
    async fn stop_met(&mut self) {
        if self.watch.stops_any() {
            self.stop_all().await;
        }
    }

    /// One round; how many there were to stop, `None` when the runtime does not say.
    async fn stop_all(&mut self) -> Option<usize> {
        let round = self.cri.stop_strict(|uid| self.watch.stops(uid)).await;
        let Round {
            found,
            met,
            trouble,
        } = round.unwrap_or_else(|error| Round {
            trouble: Some(error),
            ..Round::default()
        });
        self.watch.met(met.iter().map(String::as_str));
        for pod in &found {
            tracing::warn!(%pod, "stopped: the deadline of this Cell has passed");
        }
        let trouble = trouble.map(|error| error.to_string());
        let went_wrong = trouble.is_some();
        if trouble != self.trouble {
            match &trouble {
                Some(error) => tracing::error!(
                    error,
                    "Pods of Strict LRPs can't be stopped; trying on. Until it works the same instance may run twice"
                ),
                None => tracing::info!("the container runtime does what it is asked again"),
            }
            self.trouble = trouble;
        }
        (!went_wrong).then_some(found.len())
    }

    fn tell(&self, change: &Change) {
        let file = self.file.display();
        match change {
            Change::NotArmed(said) => {
                tracing::info!(%file, %said, "not armed: no rep has written a deadline of this boot yet");
            }
            Change::Armed => {
                tracing::info!(%file, "armed: the rep's deadline is followed from now on")
            }
            Change::Disarmed => {
                tracing::info!(%file, "not armed any more: the rep has handed the Cell over")
            }
            Change::Fencing => tracing::warn!(
                %file,
                "the deadline has passed without a renewal: stopping the Pods of Strict LRPs on this node"
            ),
            Change::MovedOn => {
                tracing::info!(%file, "the deadline moves on again: nothing else is stopped")
            }
            Change::Blind(said) => tracing::warn!(
                %file, %said,
                "the deadline can't be read any more; the last one known counts"
            ),
        }
    }
}

/// What the file says of this boot.
fn read(file: &Path, boot: &str) -> Said {
    match std::fs::read_to_string(file) {
        Ok(text) => match Deadline::parse(&text) {
            Ok((deadline, of)) if of == boot => Said::Deadline(deadline),
            Ok((_, of)) => Said::Nothing(format!("it is of another boot, {of}")),
            Err(problem) => Said::Nothing(problem),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Said::Nothing("it does not exist".into())
        }
        Err(error) => Said::Nothing(error.to_string()),
    }
}
