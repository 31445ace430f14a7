//! The rep's side of `diego fence`, with executor Pods: writes the deadline at each answered renewal, and tells the store
//! whether a fencer follows it.
//!
//! The promise is made last and taken back first: the store hears of a fencer only once that is at work and has a
//! deadline, and a rep that leaves takes the deadline back only when the store no longer says that there is a fence.

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
use crate::presence::keeper::{KeeperControl, Keeping};

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
                changed = keeping.changed() => if changed.is_err() {
                    return;
                },
                _ = look.tick() => self.tell(&mut keeping).await,
                done = over.recv() => {
                    self.hand_over().await;
                    drop(done);
                    return;
                }
            }
        }
    }

    /// Writes the deadline that counts now.
    fn follow(&mut self, keeping: &mut watch::Receiver<Keeping>) -> Keeping {
        let now = *keeping.borrow_and_update();
        if let Some(deadline) = deadline(&now) {
            self.write(deadline);
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
        match answer {
            Ok(()) => {
                self.told = Some(fence);
                match fence {
                    true => tracing::info!(
                        "Pods of Strict LRPs are stopped here when the presence can't be renewed"
                    ),
                    false => tracing::warn!(
                        "Pods of Strict LRPs are not stopped here in time: `diego fence` is not at work"
                    ),
                }
            }
            Err(error) => {
                tracing::warn!(fence, %error, "the presence store was not told whether there is a fence; trying on");
            }
        }
    }

    /// Whether a fencer of this boot is at work and has what it needs.
    fn is_kept(&self, keeping: &Keeping) -> bool {
        let armed = self.written.is_some() && self.written == deadline(keeping);
        let line = std::fs::read_to_string(&self.files.ready).unwrap_or_default();
        armed && stamp::is_at_work(&line, &self.boot, boottime::now())
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

    async fn hand_over(&mut self) {
        if self.told != Some(false)
            && let Err(error) = self.control.set_fence(false).await
        {
            tracing::warn!(%error, "the presence store was not told that there is no fence any more; the deadline stands");
            return;
        }
        self.write(Deadline::Off);
    }
}

/// What the fencer is to know.
fn deadline(keeping: &Keeping) -> Option<Deadline> {
    match keeping.superseded {
        true => Some(Deadline::Off),
        false => keeping.fence_deadline().map(Deadline::At),
    }
}
