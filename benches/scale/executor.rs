//! What a rep does about its instances, with a state in place of a process: the rep's own watches, harmonisation table,
//! transitions, patches and calls. An instance starts in no time, and runs until its Cell dies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPStatus, PortMapping};
use diego_operator::converge::harmony::said::{self, LrpFacts};
use diego_operator::converge::harmony::{self, ContainerState, LrpAction, Mode};
use diego_operator::converge::lrp::transition;
use diego_operator::patch;
use diego_operator::presence::keeper::{Keeping, KnownEpoch};
use diego_operator::rep::records::{Instance, Key, Record, lrp_view, owner_of};
use diego_operator::rep::store::Store;
use diego_operator::rep::watch::{self, Sighting};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;

/// As many sightings wait as in the rep.
const SIGHTINGS: usize = 1024;

/// Before a call that failed is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a Cell runs, by instance guid: the record's name and how far it is.
pub type Containers = Arc<Mutex<HashMap<String, (String, ContainerState)>>>;

/// The ports that every instance of the load has.
pub fn ports() -> Vec<PortMapping> {
    vec![PortMapping {
        container_port: 8080,
        host_port: 61_001,
        name: Some("http".into()),
    }]
}

/// The address of every Cell.
pub const ADDRESS: &str = "10.0.0.1";

/// The executor of one Cell.
pub struct Executor {
    /// The Cell.
    pub cell: String,
    /// The calls, bounded as the rep's.
    pub store: Store,
    /// Its presence.
    pub keeping: channel::Receiver<Keeping>,
    /// The greatest epoch under which the Cell was judged lost.
    pub dead: KnownEpoch,
    /// What it runs.
    pub containers: Containers,
    /// Records that are being settled, and what was seen of them meanwhile.
    pub busy: Mutex<HashMap<String, Option<Box<ActualLRP>>>>,
}

impl Executor {
    /// Until the task is aborted: then the machine is dead.
    pub async fn run(self: Arc<Self>, client: Client, sync: Option<Duration>) {
        let (seen, mut sightings) = mpsc::channel(SIGHTINGS);
        let mut calls = JoinSet::new();
        if let Some(every) = sync {
            calls.spawn(self.clone().sync(every, seen.clone()));
        }
        let mut keeping = self.keeping.clone();
        let mut epoch = keeping.borrow_and_update().epoch;
        let relist = seen.clone();
        calls.spawn(watch::run(client, self.cell.clone(), seen));
        loop {
            tokio::select! {
                sighting = sightings.recv() => match sighting {
                    Some(Sighting::Seen(Record::Lrp(lrp))) => self.see(lrp, &mut calls),
                    Some(Sighting::Left(key, _)) => {
                        lock(&self.containers).retain(|_, (name, _)| *name != key.name);
                    }
                    Some(Sighting::Seen(Record::Task(_)) | Sighting::Listed(..)) => {}
                    None => return,
                },
                Some(_) = calls.join_next() => {}
                Ok(()) = keeping.changed() => {
                    let now = *keeping.borrow_and_update();
                    // Registered anew: what could not be said meanwhile is said now.
                    if now.held && now.epoch != epoch {
                        epoch = now.epoch;
                        calls.spawn(self.clone().list(relist.clone()));
                    }
                }
            }
        }
    }

    /// Lists the assignments again and again, as a rep does.
    async fn sync(self: Arc<Self>, every: Duration, out: mpsc::Sender<Sighting>) {
        // Not all Cells at once.
        let first = every.mul_f64(f64::from(rand(&self.cell)) / f64::from(u16::MAX));
        let begin = tokio::time::Instant::now() + first;
        let mut tick = tokio::time::interval_at(begin, every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.clone().list(out.clone()).await;
        }
    }

    async fn list(self: Arc<Self>, out: mpsc::Sender<Sighting>) {
        // A server that can't answer is asked again the next time.
        for record in self.store.assigned(&self.cell).await.unwrap_or_default() {
            if out.send(Sighting::Seen(record)).await.is_err() {
                return;
            }
        }
    }

    fn see(self: &Arc<Self>, lrp: Box<ActualLRP>, calls: &mut JoinSet<()>) {
        let name = lrp.metadata.name.clone().unwrap_or_default();
        let mut busy = lock(&self.busy);
        if let Some(meanwhile) = busy.get_mut(&name) {
            *meanwhile = Some(lrp);
            return;
        }
        if self.next(&lrp).is_some() {
            busy.insert(name.clone(), None);
            calls.spawn(self.clone().settle(name, lrp));
        }
    }

    /// Takes one step after the other until record and container agree.
    async fn settle(self: Arc<Self>, name: String, mut lrp: Box<ActualLRP>) {
        loop {
            while let Some((guid, action)) = self.next(&lrp) {
                match self.step(&lrp, &guid, action).await {
                    Some(after) => lrp = after,
                    None => break,
                }
            }
            let mut busy = lock(&self.busy);
            match busy.get_mut(&name).and_then(Option::take) {
                Some(seen) if is_newer(&seen, &lrp) => lrp = seen,
                Some(_) | None => {
                    busy.remove(&name);
                    return;
                }
            }
        }
    }

    /// The next step about a record, by the rep's table.
    fn next(&self, lrp: &ActualLRP) -> Option<(String, LrpAction)> {
        let containers = lock(&self.containers);
        let named = lrp.status.iter().flat_map(ActualLRPStatus::named);
        let mut here = named.filter(|one| one.cell == self.cell);
        here.find_map(|one| {
            let guid = one.guid?;
            let held = containers.get(guid);
            let state = held.map_or(ContainerState::None, |(_, state)| *state);
            let instance = Instance {
                cell: &self.cell,
                guid,
                owner: None,
                retired: false,
            };
            let view = lrp_view(Some(lrp), None, instance);
            let action = harmony::lrp(view, state, Mode::Ordinary);
            (action != LrpAction::Nothing).then(|| (guid.to_owned(), action))
        })
    }

    /// Takes a step; the record after it, or `None` when there is none, or no presence.
    async fn step(&self, lrp: &ActualLRP, guid: &str, action: LrpAction) -> Option<Box<ActualLRP>> {
        let epoch = self.epoch()?;
        let unchanged = || Some(Box::new(lrp.clone()));
        let name = lrp.metadata.name.clone().unwrap_or_default();
        let set = |state| {
            let held = (name.clone(), state);
            lock(&self.containers).insert(guid.to_owned(), held);
        };
        match action {
            LrpAction::Reserve => {
                let namespace = lrp.metadata.namespace.as_deref().unwrap_or_default();
                let desired = &lrp.spec.desired_lrp_name;
                let _turn = self.store.turn().await;
                let found = self.store.desired_of(namespace, desired, owner_of(lrp));
                match found.await {
                    Ok(found) => {
                        found?;
                        set(ContainerState::Reserved);
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                unchanged()
            }
            LrpAction::Run => {
                set(ContainerState::Running);
                unchanged()
            }
            LrpAction::Stop | LrpAction::Delete => {
                lock(&self.containers).remove(guid);
                unchanged()
            }
            LrpAction::Nothing | LrpAction::CreateRecord => None,
            LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportEvacuating
            | LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::Refuse
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => self.write(lrp, guid, epoch, action).await,
        }
    }

    async fn write(
        &self,
        lrp: &ActualLRP,
        guid: &str,
        epoch: i64,
        action: LrpAction,
    ) -> Option<Box<ActualLRP>> {
        let instance = transition::Instance {
            cell: self.cell.clone(),
            epoch,
            guid: guid.to_owned(),
        };
        let facts = LrpFacts {
            address: ADDRESS.into(),
            ports: ports(),
            ..LrpFacts::default()
        };
        let status = lrp.status.clone().unwrap_or_default();
        let (_, verb) = said::lrp(action, instance, facts)?;
        let next = transition::apply(&status, &verb, Timestamp::now()).ok()?;
        let (uid, version) = (&lrp.metadata.uid, &lrp.metadata.resource_version);
        let change = patch::between(&status, &next);
        let body = patch::bound(uid.as_deref(), version.as_deref(), change);
        let key = Record::Lrp(Box::new(lrp.clone())).key();
        let _turn = self.store.turn().await;
        match self.store.write(&key, body).await {
            Ok(Record::Lrp(after)) => Some(after),
            Ok(Record::Task(_)) => None,
            Err(error) => {
                if !error.is_conflict() {
                    tokio::time::sleep(PAUSE).await;
                }
                self.read(&key).await
            }
        }
    }

    async fn read(&self, key: &Key) -> Option<Box<ActualLRP>> {
        loop {
            match self.store.read(key, None).await {
                Ok(reading) => match reading.record? {
                    Record::Lrp(lrp) => return Some(lrp),
                    Record::Task(_) => return None,
                },
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The epoch under which something may be written now.
    fn epoch(&self) -> Option<i64> {
        let keeping = *self.keeping.borrow();
        let epoch = keeping.epoch.filter(|epoch| *epoch > self.dead.get());
        epoch.filter(|_| keeping.held)
    }
}

fn is_newer(one: &ActualLRP, other: &ActualLRP) -> bool {
    let record = |lrp: &ActualLRP| Record::Lrp(Box::new(lrp.clone()));
    record(one).is_newer_than(&record(other))
}

/// A number that differs from Cell to Cell.
fn rand(cell: &str) -> u16 {
    let mix = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(16_777_619);
    let mixed = cell.bytes().fold(2_166_136_261, mix);
    (mixed >> 16) as u16
}

/// Locks; a panic elsewhere ends the benchmark anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
