//! The rep's side of `diego fence`, with executor Pods: writes the deadline at each answered renewal, and tells the store
//! whether a fencer follows it.
//!
//! The promise is made last and taken back first: the fencer gets a deadline just before the store hears of it, and not
//! before it is at work, so that a rep that ends soon after its start leaves none behind. The deadline is taken back
//! only when the store no longer says that there is a fence.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::procfs;
use crate::boottime;
use crate::converge::fence;
use crate::fence::stamp::{self, Deadline};
use crate::presence::keeper::{KeeperControl, KeeperError, Keeping};

/// How often is looked whether the fencer is at work: it says so each second.
const LOOK: Duration = Duration::from_secs(1);

/// The files between rep and fencer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceFiles {
    /// Where the rep writes its deadline.
    pub deadline: PathBuf,
    /// Where the fencer says that it is at work.
    pub ready: PathBuf,
}

/// Keeps the deadline file during one life of a rep; the last line stands when it is dropped.
pub(super) struct DeadlineFile {
    over: mpsc::Sender<oneshot::Sender<()>>,
    _keeper: AbortOnDropHandle<()>,
}

impl DeadlineFile {
    /// Begins. So far the store says that there is no fence.
    ///
    /// # Errors
    /// When the machine does not tell which boot it is in.
    pub(super) fn start(
        files: FenceFiles,
        ttl: Duration,
        control: KeeperControl,
    ) -> std::io::Result<Self> {
        if let Err(error) = fence::reach(ttl) {
            tracing::warn!(%error, "Strict LRPs are not fenced here");
        }
        let boot = procfs::boot_id()?;
        let state = State {
            files,
            boot,
            control,
            written: None,
            told: Some(false),
            trouble: None,
        };
        let (over, is_over) = mpsc::channel(1);
        let keeper = AbortOnDropHandle::new(tokio::spawn(state.keep(is_over)));
        Ok(Self {
            over,
            _keeper: keeper,
        })
    }

    /// Takes the promise back, and with it the deadline: the next rep of this machine makes its own. When the store does
    /// not confirm it, the deadline stands.
    pub(super) async fn hand_over(self) {
        let (done, is_done) = oneshot::channel();
        if self.over.send(done).await.is_ok() {
            let _it_has_ended_either_way = is_done.await;
        }
    }
}

struct State {
    files: FenceFiles,
    boot: String,
    control: KeeperControl,
    /// What was written last.
    written: Option<Deadline>,
    /// What the store says, as far as is known.
    told: Option<bool>,
    /// What is wrong with the file, once told.
    trouble: Option<String>,
}

impl State {
    /// Until the keeper of the presence ends, or the Cell is handed over.
    async fn keep(mut self, mut over: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut keeping = self.control.keeping();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.follow(&mut keeping);
            tokio::select! {
                changed = keeping.changed() => match changed {
                    Ok(()) => self.tell(&mut keeping).await,
                    Err(_) => return,
                },
                _ = look.tick() => self.tell(&mut keeping).await,
                done = over.recv() => {
                    self.hand_over(&mut keeping).await;
                    drop(done);
                    return;
                }
            }
        }
    }

    /// Writes the deadline that counts now, where the store may say that there is a fence.
    fn follow(&mut self, keeping: &mut watch::Receiver<Keeping>) -> Keeping {
        let now = *keeping.borrow_and_update();
        if now.superseded {
            // The keeper says so of its next registration, too.
            self.told = Some(false);
            self.write(Deadline::Off);
        } else if self.told != Some(false)
            && let Some(deadline) = now.fence_deadline()
        {
            self.write(Deadline::At(deadline));
        }
        now
    }

    /// Tells the store whether there is a fence, if that has changed. The deadline moves on meanwhile.
    async fn tell(&mut self, keeping: &mut watch::Receiver<Keeping>) {
        let now = self.follow(keeping);
        let fence = self.is_kept(&now);
        if !now.held || self.told == Some(fence) {
            return;
        }
        match self.publish(fence, keeping).await {
            Ok(()) => match fence {
                true => tracing::info!(
                    "Pods of Strict LRPs are stopped here when the presence can't be renewed"
                ),
                false => {
                    self.write(Deadline::Off);
                    tracing::warn!(
                        "Pods of Strict LRPs are not stopped here in time: `diego fence` is not at work"
                    );
                }
            },
            Err(error) => {
                tracing::warn!(fence, %error, "the presence store was not told whether there is a fence; trying on");
            }
        }
    }

    /// Has the store say whether there is a fence. The deadline moves on meanwhile.
    async fn publish(
        &mut self,
        fence: bool,
        keeping: &mut watch::Receiver<Keeping>,
    ) -> Result<(), KeeperError> {
        // Until it is confirmed it may have been written, or not.
        self.told = None;
        let control = self.control.clone();
        let mut telling = pin!(control.set_fence(fence));
        let answer = loop {
            tokio::select! {
                answer = &mut telling => break answer,
                Ok(()) = keeping.changed() => drop(self.follow(keeping)),
            }
        };
        // Unless it was superseded meanwhile.
        if answer.is_ok() && self.told.is_none() {
            self.told = Some(fence);
        }
        answer
    }

    /// Whether a fencer of this boot is at work and has a deadline; it is given its first one here.
    fn is_kept(&mut self, keeping: &Keeping) -> bool {
        let line = std::fs::read_to_string(&self.files.ready).unwrap_or_default();
        let at_work = stamp::is_at_work(&line, &self.boot, boottime::now());
        let of_us = keeping.held && !keeping.superseded;
        let Some(deadline) = keeping.fence_deadline().filter(|_| at_work && of_us) else {
            return false;
        };
        self.write(Deadline::At(deadline));
        self.written == Some(Deadline::At(deadline))
    }

    /// Writes a line, if it is another one. What could not be written is tried again with the next one.
    fn write(&mut self, deadline: Deadline) {
        if self.written == Some(deadline) {
            return;
        }
        let file = &self.files.deadline;
        match stamp::write(file, &deadline.line(&self.boot)) {
            Ok(()) => {
                self.written = Some(deadline);
                self.trouble = None;
            }
            Err(error) => {
                let trouble = format!(
                    "--fence-deadline-file {}: {error}; give a file in a directory that rep and fencer share and may write to",
                    file.display()
                );
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(trouble, "the deadline can't be written");
                    self.trouble = Some(trouble);
                }
            }
        }
    }

    async fn hand_over(&mut self, keeping: &mut watch::Receiver<Keeping>) {
        if self.told != Some(false)
            && let Err(error) = self.publish(false, keeping).await
        {
            tracing::warn!(%error, "the presence store was not told that there is no fence any more; the deadline stands");
            return;
        }
        self.write(Deadline::Off);
    }
}
