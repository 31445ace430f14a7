//! A keeper's Lease in the API server. It does not run out, so what a rep finds may be over although it is there.
//!
//! A registration is a compare-and-swap of the whole object by its version. Where there is no object it takes two writes:
//! one makes it, without a value, and its version is then the epoch that the second one registers. Whoever read before
//! that there is no Lease read an older version; see `docs/decisions/0009-presence-by-leases.md`.

mod lease;

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::super::etcd::within;
use super::super::kubernetes::{
    CELL, KubernetesConfig, Said, Sighting, lease_name, new_lease, now, with_value,
};
use super::super::{PresencePhase, PresenceValue, StoreError};
use super::backend::{Answer, Ask, Attempt, Backend, Changed, Epochs, Failure, Held};
use super::decide::{Found, Step, decide, epoch_base};
use super::pace::Grain;
use super::{KeeperError, LossReason, RETRY_MIN, Sent};
use lease::{is_of, is_released, says, unless_changed};

/// After so many errors in a row of a server itself another connection is made.
const TROUBLED: u32 = 3;

/// One exchange beside the renewals.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The keeper's side of the API server.
pub(super) struct LeaseBackend {
    config: KubernetesConfig,
    name: String,
    /// The connection, made when first used.
    leases: Option<Api<Lease>>,
    /// The uid of the Lease that is held.
    uid: Option<String>,
    /// Another's Lease, and since when it has not changed.
    watched: Option<(Sighting, Instant)>,
    /// How often in a row the server answered that it can't.
    troubled: u32,
}

impl LeaseBackend {
    pub(super) fn new(config: KubernetesConfig, cell: &str) -> Self {
        Self {
            name: lease_name(cell),
            config,
            leases: None,
            uid: None,
            watched: None,
            troubled: 0,
        }
    }

    fn leases(&mut self) -> Result<Api<Lease>, StoreError> {
        match &self.leases {
            Some(leases) => Ok(leases.clone()),
            None => Ok(self.leases.insert(self.config.leases()?).clone()),
        }
    }

    async fn get(&mut self) -> Result<Option<Lease>, StoreError> {
        let leases = self.leases()?;
        within(TIMEOUT, leases.get_opt(&self.name)).await
    }

    /// What a Lease that was read just now means to us.
    fn found(&mut self, lease: &Lease, ask: &Ask<'_>) -> Found {
        let own = is_of(lease, ask.holder);
        let Some(seen) = Sighting::of(lease) else {
            // It has another name, so nothing is registered by it.
            return Found {
                value: None,
                count: 0,
                own,
                over: true,
                silent: Duration::ZERO,
            };
        };
        let unchanged = self.unchanged(&seen);
        let silent = unchanged >= seen.ttl();
        let count = seen.last_count();
        let (value, over) = match seen.said {
            Said::Nothing => (None, true),
            // Whoever damaged it, it is ours to mend.
            Said::Unreadable => (None, own || silent),
            Said::Value(value, _) => {
                let over = match value.phase {
                    PresencePhase::Released | PresencePhase::Dead => true,
                    PresencePhase::Held | PresencePhase::Draining | PresencePhase::Restarting => {
                        silent
                    }
                };
                (Some(value), over)
            }
        };
        Found {
            value,
            count,
            own,
            over,
            silent: unchanged,
        }
    }

    /// For how long the Lease has not changed, as far as this keeper has seen.
    fn unchanged(&mut self, seen: &Sighting) -> Duration {
        match &self.watched {
            Some((known, since)) if known == seen => since.elapsed(),
            Some(_) | None => {
                self.watched = Some((seen.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Registers by the Lease, under the next epoch.
    async fn register(
        &mut self,
        lease: &Lease,
        found: &Found,
        ask: &Ask<'_>,
    ) -> Result<Attempt, Failure> {
        let known = found.value.as_ref();
        let last = ask.last_epoch.max(ask.registration.dead_epoch.get());
        let last = known.map_or(last, |_| last.max(found.epoch()));
        let base = epoch_base(ask.epochs.base.max(found.base()), last, found.count);
        let ours = known.filter(|value| {
            (value.owner.as_str(), &value.incarnation) == (ask.owner, &ask.registration.incarnation)
        });
        let first = ours.map(|value| value.first_epoch.unwrap_or(found.epoch()));
        let epochs = Epochs {
            base,
            first: ask.epochs.first.or(first),
        };
        let epoch = base.saturating_add(found.count).saturating_add(1);
        self.write(lease, ask, epochs, epoch, false).await
    }

    async fn write(
        &mut self,
        lease: &Lease,
        ask: &Ask<'_>,
        epochs: Epochs,
        epoch: i64,
        took_over: bool,
    ) -> Result<Attempt, Failure> {
        let ttl = ask.ttl;
        let value = ask.value(ttl, epochs, Some(epoch));
        let sent = Sent::now();
        let Some(lease) = self.replace(lease, &value).await? else {
            return Ok(Attempt::Again);
        };
        self.uid = lease.metadata.uid;
        self.watched = None;
        Ok(Attempt::Held(Held {
            value,
            epoch,
            lease: 0,
            ttl,
            sent,
            took_over,
        }))
    }

    /// Writes a value, if the Lease is still as it was read; `None` if it is not.
    async fn replace(
        &mut self,
        lease: &Lease,
        value: &PresenceValue,
    ) -> Result<Option<Lease>, StoreError> {
        let leases = self.leases()?;
        let (params, next) = (PostParams::default(), with_value(lease, value));
        let answer = within(TIMEOUT, leases.replace(&self.name, &params, &next)).await;
        unless_changed(answer)
    }

    /// Renews, if it is our Lease. Only the time is written: it is read by nobody, but it makes the Lease change.
    async fn patch(&mut self, held: &Held, limit: Duration) -> Result<Option<Lease>, StoreError> {
        let leases = self.leases()?;
        let renewal = json!([
            { "op": "test", "path": "/metadata/uid", "value": self.uid },
            { "op": "test", "path": "/spec/holderIdentity", "value": held.value.holder },
            { "op": "replace", "path": "/spec/renewTime", "value": now() },
        ]);
        let renewal = serde_json::from_value(renewal).map_err(kube::Error::SerdeError)?;
        let (params, renewal) = (PatchParams::default(), Patch::<()>::Json(renewal));
        let answer = within(limit, leases.patch(&self.name, &params, &renewal)).await;
        unless_changed(answer)
    }
}

impl Backend for LeaseBackend {
    fn endpoints(&self) -> usize {
        1
    }

    fn endpoint(&self) -> String {
        self.config.endpoint()
    }

    fn failed(&mut self, error: &StoreError) {
        // A store that was away gives every holder its full TTL again.
        self.watched = None;
        self.troubled = match error.status() {
            Some(status) if status.code >= 500 => self.troubled + 1,
            Some(_) | None => 0,
        };
        // A connection that brings answers is kept. Where there are several servers, this one may be the only one that can't.
        if error.status().is_none() || self.troubled >= TROUBLED {
            (self.leases, self.troubled) = (None, 0);
        }
    }

    async fn attempt(&mut self, ask: &Ask<'_>) -> Result<Attempt, Failure> {
        let lease = match self.get().await? {
            Some(lease) => lease,
            None => {
                let leases = self.leases()?;
                let lease = new_lease(&self.name, CELL, ask.holder, ask.ttl);
                let made = within(TIMEOUT, leases.create(&PostParams::default(), &lease)).await;
                match unless_changed(made)? {
                    Some(lease) => lease,
                    None => return Ok(Attempt::Again),
                }
            }
        };
        let found = self.found(&lease, ask);
        match decide(Some(&found), ask.claim()) {
            Step::Wait => Ok(Attempt::Refused(found)),
            Step::TakeOver => {
                let (epochs, epoch) = (found.epochs(ask.epochs), found.epoch());
                self.write(&lease, ask, epochs, epoch, !found.own).await
            }
            Step::Create => self.register(&lease, &found, ask).await,
            Step::Replace => {
                // Of what was judged lost nobody is to be told once more.
                let told = found.own || found.epoch() <= ask.registration.dead_epoch.get();
                let former = found.value.as_ref().filter(|_| !told);
                let Some(former) = former else {
                    return self.register(&lease, &found, ask).await;
                };
                let ended = PresenceValue {
                    phase: PresencePhase::Restarting,
                    ..former.clone()
                };
                match self.replace(&lease, &ended).await? {
                    Some(lease) => self.register(&lease, &found, ask).await,
                    None => Ok(Attempt::Again),
                }
            }
        }
    }

    /// What 300 Cells ask for with a TTL of 4.5 s: a third of what Kubernetes reckons with for 5,000 nodes.
    fn grain(&self) -> Grain {
        Grain {
            whole: false,
            renewals: 200,
        }
    }

    async fn renew(&mut self, held: &mut Held, limit: Duration) -> Result<Answer, StoreError> {
        match self.patch(held, limit).await {
            Ok(Some(lease)) if says(&lease, held) => {
                self.troubled = 0;
                Ok(Answer::Renewed)
            }
            Ok(_) => Ok(Answer::Gone(LossReason::KeyGone)),
            // A test of the patch failed, or others write all the time: look which.
            Err(StoreError::Kubernetes(kube::Error::Api(status)))
                if matches!(status.code, 409 | 422) =>
            {
                match self.get().await? {
                    Some(lease) if lease.metadata.uid == self.uid && says(&lease, held) => {
                        Err(kube::Error::Api(status).into())
                    }
                    Some(_) | None => Ok(Answer::Gone(LossReason::KeyGone)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// By compare-and-swap of the whole object. Written twice it is the same, so an answer that was lost does no harm.
    async fn change_ttl(
        &mut self,
        held: &mut Held,
        ttl: Duration,
        limit: Duration,
    ) -> Result<Changed, StoreError> {
        within(limit, self.try_ttl(held, ttl)).await
    }

    /// Nothing is ever in doubt.
    async fn settle(&mut self, _held: &mut Held, _limit: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    /// Every renewal tells.
    async fn is_there(&mut self, _held: &Held, _limit: Duration) -> Option<bool> {
        None
    }

    fn write_phase(
        &self,
        held: &Held,
        phase: PresencePhase,
        until: Instant,
    ) -> BoxFuture<'static, Result<(), KeeperError>> {
        let mut other = Self {
            config: self.config.clone(),
            name: self.name.clone(),
            leases: self.leases.clone(),
            uid: self.uid.clone(),
            watched: None,
            troubled: 0,
        };
        let held = held.clone();
        async move {
            loop {
                match other.try_phase(&held, phase).await {
                    Ok(Some(written)) => return written,
                    Ok(None) if Instant::now() < until => {}
                    Ok(None) => {
                        return Err(KeeperError::NotWritten("it changes all the time".into()));
                    }
                    Err(error) if Instant::now() >= until => {
                        return Err(KeeperError::NotWritten(error.to_string()));
                    }
                    Err(error) => {
                        other.failed(&error);
                        tokio::time::sleep(RETRY_MIN).await;
                    }
                }
            }
        }
        .boxed()
    }

    async fn end(&mut self, ask: &Ask<'_>, until: Instant) -> bool {
        loop {
            match self.try_end(ask).await {
                Ok(true) => return true,
                Ok(false) | Err(_) if Instant::now() >= until => return false,
                Ok(false) => {}
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(RETRY_MIN).await;
                }
            }
        }
    }
}

impl LeaseBackend {
    async fn try_ttl(&mut self, held: &mut Held, ttl: Duration) -> Result<Changed, StoreError> {
        let sent = Sent::now();
        let Some(lease) = self.get().await? else {
            return Ok(Changed::No(None));
        };
        let seen = Sighting::of(&lease).map(|seen| seen.said);
        let ours = lease.metadata.uid == self.uid && says(&lease, held);
        let Some(Said::Value(value, _)) = seen.filter(|_| ours) else {
            return Ok(Changed::No(None));
        };
        let value = PresenceValue { ttl, ..value };
        if self.replace(&lease, &value).await?.is_none() {
            return Ok(Changed::No(None));
        }
        (held.ttl, held.value.ttl) = (ttl, ttl);
        Ok(Changed::Done(sent))
    }

    /// `None` when the Lease changed meanwhile.
    async fn try_phase(
        &mut self,
        held: &Held,
        phase: PresencePhase,
    ) -> Result<Option<Result<(), KeeperError>>, StoreError> {
        let lease = self.get().await?;
        let ours = lease.filter(|lease| lease.metadata.uid == self.uid && says(lease, held));
        let Some(lease) = ours else {
            return Ok(Some(Err(KeeperError::NotHeld)));
        };
        // One that arrives late must not hide that the presence was given back: its end would be a loss.
        if phase != PresencePhase::Released && is_released(&lease) {
            return Ok(Some(Err(KeeperError::NotHeld)));
        }
        let value = PresenceValue {
            phase,
            ..held.value.clone()
        };
        Ok(self.replace(&lease, &value).await?.map(|_| Ok(())))
    }

    /// Whether nothing is there that we hold, or made for a registration. Only deleted as it was read: a successor that
    /// took it over meanwhile keeps it.
    async fn try_end(&mut self, ask: &Ask<'_>) -> Result<bool, StoreError> {
        let lease = self.get().await?;
        let Some(lease) = lease.filter(|lease| is_of(lease, ask.holder)) else {
            return Ok(true);
        };
        let leases = self.leases()?;
        let unchanged = DeleteParams::default().preconditions(Preconditions {
            uid: lease.metadata.uid,
            resource_version: lease.metadata.resource_version,
        });
        let answer = within(TIMEOUT, leases.delete(&self.name, &unchanged)).await;
        Ok(unless_changed(answer.map(drop))?.is_some())
    }
}
