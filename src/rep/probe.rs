//! Is it ready, and does it still work? The probes of an instance, asked at the address that clients will use.
//!
//! The order is that of Diego's monitor: first the startup probe, then readiness decides when the instance is
//! Running, and from then on liveness is asked until it fails. A failing readiness probe never ends an instance (the
//! start timeout does), and once the instance is Running it is not asked again: a record has no state for it.

mod attempt;
mod exec;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ports::Ports;
use super::process::Program;
use crate::converge::process_spec::{Check, Probe, ProcessSpec};

/// The first pause between two tries; each is twice as long as the one before, up to the probe's period.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Period and timeout where the template has no readiness probe.
const DEFAULT_PERIOD: Duration = Duration::from_secs(1);

/// What is probed.
#[derive(Debug)]
pub(super) struct Subject {
    /// Its probes and ports.
    pub(super) spec: ProcessSpec,
    /// The machine's ports for the template's.
    pub(super) ports: Arc<Ports>,
    /// The address it is asked at.
    pub(super) host: String,
    /// What it runs: a probe by command has the same directory and environment.
    pub(super) program: Program,
    /// Whether readiness is asked; a Task is never ready.
    pub(super) readiness: bool,
}

/// What the probes show.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is ready for traffic. Told at most once.
    Ready,
    /// It must be stopped. The last finding.
    Unhealthy(Unhealthy),
}

/// Why an instance must be stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unhealthy {
    /// Which probe failed and how.
    pub(super) reason: String,
    /// How long it may take to end, if the probe says so.
    pub(super) grace: Option<Duration>,
}

/// Asks the probes of an instance that was just started, until `stop` or until one shows that it must end. No process
/// of a probe is left then.
pub(super) async fn run(
    subject: Subject,
    found: mpsc::UnboundedSender<Finding>,
    stop: CancellationToken,
) {
    let prober = Prober {
        began: Instant::now(),
        subject,
        stop,
    };
    if let Some(unhealthy) = prober.ask(&found).await {
        // The instance has ended meanwhile if nobody listens.
        let _ = found.send(Finding::Unhealthy(unhealthy));
    }
}

struct Prober {
    began: Instant,
    subject: Subject,
    stop: CancellationToken,
}

impl Prober {
    /// `None` is an instance that was stopped, or that nothing is left to be asked of.
    async fn ask(&self, found: &mpsc::UnboundedSender<Finding>) -> Option<Unhealthy> {
        let spec = &self.subject.spec;
        if let Some(startup) = &spec.startup
            && let Err(why) = self.started_up(startup).await?
        {
            return Some(unhealthy("startup", &why, startup));
        }
        if self.subject.readiness {
            self.ready().await?;
            let _ = found.send(Finding::Ready);
        }
        let liveness = spec.liveness.as_ref()?;
        let why = self.fails(liveness).await?;
        Some(unhealthy("liveness", &why, liveness))
    }

    /// Returns once the startup probe succeeds, or has not for as long as its failures take.
    async fn started_up(&self, probe: &Probe) -> Option<Result<(), String>> {
        self.until(self.began + probe.initial_delay).await?;
        let give_up = Instant::now() + probe.period * (probe.failures - 1);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(probe).await? {
                Ok(()) => return Some(Ok(())),
                Err(why) if Instant::now() >= give_up => return Some(Err(why)),
                Err(_) => {}
            }
            let next = Instant::now() + pause;
            self.until(next.min(give_up.max(Instant::now()))).await?;
            pause = (pause * 2).min(probe.period);
        }
    }

    /// Returns once the instance is ready; without a readiness probe and without ports it is at once.
    async fn ready(&self) -> Option<()> {
        let spec = &self.subject.spec;
        if let Some(readiness) = &spec.readiness {
            return self.succeeds(readiness).await;
        }
        for port in &spec.ports {
            let accepts = Probe {
                check: Check::Tcp {
                    port: port.container_port,
                },
                initial_delay: Duration::ZERO,
                period: DEFAULT_PERIOD,
                timeout: DEFAULT_PERIOD,
                successes: 1,
                failures: 1,
                grace: None,
            };
            self.succeeds(&accepts).await?;
        }
        Some(())
    }

    /// Tries until so many tries in a row have succeeded.
    async fn succeeds(&self, probe: &Probe) -> Option<()> {
        self.until(self.began + probe.initial_delay).await?;
        let mut pause = FIRST_PAUSE;
        let mut successes = 0;
        loop {
            successes = match self.attempt(probe).await? {
                Ok(()) => successes + 1,
                Err(_) => 0,
            };
            if successes >= probe.successes {
                return Some(());
            }
            self.until(Instant::now() + pause).await?;
            pause = (pause * 2).min(probe.period);
        }
    }

    /// Tries until so many tries in a row have failed, and returns how the last one did.
    async fn fails(&self, probe: &Probe) -> Option<String> {
        self.until(self.began + probe.initial_delay).await?;
        let mut tick = interval(probe.period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            self.stop.run_until_cancelled(tick.tick()).await?;
            match self.attempt(probe).await? {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= probe.failures {
                        return Some(why);
                    }
                }
            }
        }
    }

    /// One try. `None` is a stop that came meanwhile.
    async fn attempt(&self, probe: &Probe) -> Option<Result<(), String>> {
        let Subject {
            ports,
            host,
            program,
            ..
        } = &self.subject;
        let (stop, limit) = (&self.stop, probe.timeout);
        let tried = match &probe.check {
            Check::Tcp { port } => {
                let tried = attempt::tcp(host, ports.host_port(*port), limit);
                stop.run_until_cancelled(tried).await?
            }
            Check::Http {
                port,
                path,
                headers,
            } => {
                let tried = attempt::http(host, ports.host_port(*port), path, headers, limit);
                stop.run_until_cancelled(tried).await?
            }
            // It ends its processes before it returns, so it must not be dropped half-way.
            Check::Exec { command } => exec::run(program, command, limit, stop).await,
        };
        (!stop.is_cancelled()).then_some(tried)
    }

    async fn until(&self, when: Instant) -> Option<()> {
        self.stop.run_until_cancelled(sleep_until(when)).await
    }
}

fn unhealthy(which: &str, why: &str, probe: &Probe) -> Unhealthy {
    Unhealthy {
        reason: format!("{which} probe failed: {why}"),
        grace: probe.grace,
    }
}
