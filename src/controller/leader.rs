//! One leader among several controllers, by a Lease: what was decided is done here, on a thread and with a client of
//! its own, so that no plan, however large, holds up a renewal.
//!
//! Whoever leads opens the [`Gate`] that every write of the controller passes, for a time that ends by itself. The Lease
//! is only ever replaced at the version that was read, so of two who want it one gets it.

mod decide;
mod lease;
mod term;

use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::gate::Gate;
use crate::client::{self, ConnectError, brief};
use crate::metrics::ClientMetrics;

use decide::{Candidate, Step};

pub use decide::Timing;
pub(super) use term::{Kept, terms};

/// The Lease, and the label of the metric.
pub const NAME: &str = "diego-controller";

/// A stop waits so long for the Lease to be given up. Nobody is held up by more than its duration when that fails.
const LEAVE: Duration = Duration::from_secs(1);

/// What an election needs.
#[derive(Clone)]
pub struct Election {
    /// Where the API server is.
    pub config: Config,
    /// Of every client.
    pub metrics: ClientMetrics,
    /// Where the Lease lives.
    pub namespace: String,
    /// How long everything takes.
    pub timing: Timing,
    /// Open while this controller leads.
    pub gate: Gate,
    /// Counts the times that it began to lead.
    pub terms: watch::Sender<u64>,
}

/// Takes part in the election from `ready` on, and gives the Lease up after `leave`. What is returned is cancelled when
/// that is over, or when it has ended by itself.
///
/// # Errors
/// When there is no thread for it.
pub fn start(
    election: Election,
    ready: watch::Receiver<bool>,
    leave: CancellationToken,
) -> std::io::Result<CancellationToken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let over = CancellationToken::new();
    // Dropped at the end of the thread, however it ends.
    let guard = over.clone().drop_guard();
    let work = move || {
        let _guard = guard;
        if let Err(error) = runtime.block_on(run(election, ready, leave)) {
            tracing::error!(%error, "no leader election");
        }
    };
    thread::Builder::new().name("leader".into()).spawn(work)?;
    Ok(over)
}

async fn run(
    election: Election,
    mut ready: watch::Receiver<bool>,
    leave: CancellationToken,
) -> Result<(), ConnectError> {
    // Whoever could not act yet must not keep the Lease from one who can.
    let warm = ready.wait_for(|ready| *ready);
    if !matches!(leave.run_until_cancelled(warm).await, Some(Ok(_))) {
        return Ok(());
    }
    let me = lease::identity();
    tracing::info!(lease = NAME, namespace = election.namespace, identity = me, timing = ?election.timing, "standing for leader");
    let mut contender = Contender {
        lease: election.lease()?,
        candidate: Candidate::new(me, election.timing, Instant::now()),
        stored: None,
        told: None,
        troubled: false,
        election,
    };
    leave.run_until_cancelled(contender.contend()).await;
    contender.election.gate.shut();
    if tokio::time::timeout(LEAVE, contender.give_up())
        .await
        .is_err()
    {
        tracing::warn!("the Lease could not be given up in time: it runs out by itself");
    }
    Ok(())
}

impl Election {
    /// The Lease, by a connection of its own.
    fn lease(&self) -> Result<Api<Lease>, ConnectError> {
        let mut config = self.config.clone();
        config.connect_timeout = Some(self.timing.call());
        let client: Client = client::build(&config, &self.metrics)?;
        Ok(Api::namespaced(client, &self.namespace))
    }
}

struct Contender {
    election: Election,
    lease: Api<Lease>,
    candidate: Candidate,
    /// The object as it was read or written last.
    stored: Option<Lease>,
    /// Behind whom it was said to stand by.
    told: Option<String>,
    /// It was said that the Lease is out of reach.
    troubled: bool,
}

impl Contender {
    /// For ever: follows the rule.
    async fn contend(&mut self) {
        loop {
            match self.candidate.step(Instant::now()) {
                Step::Wait(until) => tokio::time::sleep_until(until.into()).await,
                Step::Look => self.look().await,
                Step::Acquire | Step::Renew => self.write().await,
                Step::Lost => self.lost(),
            }
        }
    }

    async fn look(&mut self) {
        let sent = Instant::now();
        let call = self.lease.get_opt(NAME);
        match tokio::time::timeout(self.election.timing.call(), call).await {
            Ok(Ok(stored)) => {
                let record = stored
                    .as_ref()
                    .map(|lease| lease::read(lease, self.election.timing));
                self.candidate.looked(record, Instant::now());
                self.stored = stored;
                self.well();
                self.tell();
            }
            Ok(Err(error)) => self.trouble(sent, &error),
            Err(_) => self.no_answer(sent),
        }
    }

    async fn write(&mut self) {
        let claim = self.candidate.claim(Timestamp::now());
        let lease = lease::write(self.stored.as_ref(), &self.election.namespace, &claim);
        let exists = self.stored.is_some();
        // Before it is sent: the store may count from any moment after this.
        let sent = Instant::now();
        let call = async {
            let params = PostParams::default();
            if exists {
                self.lease.replace(NAME, &params, &lease).await
            } else {
                self.lease.create(&params, &lease).await
            }
        };
        match tokio::time::timeout(self.election.timing.call(), call).await {
            Ok(Ok(stored)) => {
                let record = lease::read(&stored, self.election.timing);
                self.candidate.wrote(record, sent, Instant::now());
                self.stored = Some(stored);
                self.well();
                self.lead();
            }
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict()
                    || status.is_already_exists()
                    || exists && status.is_not_found() =>
            {
                self.candidate.met_a_conflict(Instant::now());
            }
            Ok(Err(error)) => self.trouble(sent, &error),
            Err(_) => self.no_answer(sent),
        }
    }

    /// Opens the gate for as long as the last write is good for. An answer that comes too late opens nothing.
    fn lead(&mut self) {
        let Some(until) = self.candidate.leads_until() else {
            return;
        };
        let gate = &self.election.gate;
        let led = gate.is_open();
        gate.open_until(until);
        // After a gap, however short, something may have been left to others that nobody did.
        if !led && gate.is_open() {
            self.told = None;
            tracing::info!("leading");
            self.election.terms.send_modify(|terms| *terms += 1);
        }
    }

    fn lost(&mut self) {
        self.election.gate.shut();
        self.candidate.stopped(Instant::now());
        tracing::warn!(
            holder = self.candidate.holder(),
            "not leading any more: the Lease was not renewed in time"
        );
    }

    /// Says behind whom it stands by, once.
    fn tell(&mut self) {
        if self.candidate.leads_until().is_some() {
            return;
        }
        let holder = self.candidate.holder().map(str::to_owned);
        if let Some(holder) = holder.filter(|holder| self.told.as_ref() != Some(holder)) {
            tracing::info!("standing by behind {holder}");
            self.told = Some(holder);
        }
    }

    fn well(&mut self) {
        if std::mem::take(&mut self.troubled) {
            tracing::info!(lease = NAME, "the Lease can be reached again");
        }
    }

    fn trouble(&mut self, sent: Instant, error: &kube::Error) {
        self.troubled(sent, &brief(error));
    }

    fn no_answer(&mut self, sent: Instant) {
        self.troubled(sent, "no answer in time");
        // The connection may be dead, and nobody would tell for seconds; another one may lead to another server.
        match self.election.lease() {
            Ok(lease) => self.lease = lease,
            Err(error) => tracing::debug!(%error, "no new connection"),
        }
    }

    fn troubled(&mut self, sent: Instant, problem: &str) {
        self.candidate.failed(sent, Instant::now());
        if !std::mem::replace(&mut self.troubled, true) {
            let namespace = &self.election.namespace;
            tracing::warn!(
                lease = NAME,
                namespace,
                problem,
                "the Lease can't be read or written; trying again. If this lasts, check --namespace and the rights to get, create and update leases.coordination.k8s.io in it"
            );
        }
    }

    /// Leaves the Lease to whoever comes first.
    async fn give_up(&mut self) {
        // Twice, since the last renewal may have been cut off and have taken effect all the same.
        for _ in 0..2 {
            let Ok(Some(stored)) = self.lease.get_opt(NAME).await else {
                return;
            };
            let mut record = lease::read(&stored, self.election.timing);
            if record.holder.as_deref() != Some(self.candidate.me()) {
                return;
            }
            record.holder = None;
            record.renewed = Some(Timestamp::now());
            let lease = lease::write(Some(&stored), &self.election.namespace, &record);
            match self
                .lease
                .replace(NAME, &PostParams::default(), &lease)
                .await
            {
                Ok(_) => {
                    tracing::info!("the lead is given up");
                    return;
                }
                Err(error) => tracing::debug!(%error, "the Lease is not given up yet"),
            }
        }
    }
}
