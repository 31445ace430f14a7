//! The fencer's sign of life, for the rep and for probes: it looks at the deadline, and the runtime answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::cri::Cri;
use super::stamp::{self, Deadline};
use crate::boottime;
use crate::converge::fence::BootTime;

/// How often the runtime is asked, and the rep told.
const EVERY: Duration = Duration::from_secs(1);

/// A fencer that has not looked at the deadline for so long hangs. Longer than one round with the runtime.
const LOOKED: Duration = Duration::from_secs(5);

/// When the deadline was looked at last.
#[derive(Debug, Default)]
pub(super) struct Look(AtomicU64);

impl Look {
    pub(super) fn was_at(&self, now: BootTime) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn is_recent(&self, now: BootTime) -> bool {
        now.since(BootTime::from_nanos(self.0.load(Ordering::Relaxed))) <= LOOKED
    }
}

/// All that the sign of life is made of.
pub(super) struct Pulse {
    pub cri: Cri,
    pub boot: String,
    pub file: Option<PathBuf>,
    pub look: Arc<Look>,
    pub ready: watch::Sender<bool>,
}

impl Pulse {
    pub(super) async fn run(self) {
        let mut last: Option<Result<(), String>> = None;
        loop {
            let beat = self.beat().await;
            self.ready.send_replace(beat.is_ok());
            let beat = match beat {
                Ok(runtime) => {
                    if last != Some(Ok(())) {
                        tracing::info!(runtime, "ready: the container runtime answers");
                    }
                    Ok(())
                }
                Err(problem) => {
                    if last.as_ref().and_then(|last| last.as_ref().err()) != Some(&problem) {
                        tracing::error!(
                            problem,
                            "not ready: the rep is not told that Pods of Strict LRPs would be stopped"
                        );
                    }
                    Err(problem)
                }
            };
            last = Some(beat);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The runtime's name, if all is well.
    async fn beat(&self) -> Result<String, String> {
        let runtime = self
            .cri
            .version()
            .await
            .map_err(|error| error.to_string())?;
        let now = boottime::now();
        if !self.look.is_recent(now) {
            return Err("the fencer has not looked at the deadline for seconds".into());
        }
        if let Some(file) = &self.file {
            let line = Deadline::At(now).line(&self.boot);
            stamp::write(file, &line).map_err(|error| {
                format!(
                    "--ready-file {}: {error}; give a file in a directory that rep and fencer share and may write to",
                    file.display()
                )
            })?;
        }
        Ok(runtime)
    }
}
