//! A watch of the Cells' Leases. A Lease does not run out: the observer times each by its own clock, from when it saw it
//! renewed, and for as long as it hears the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use diego_operator::presence::PresencePhase;
use diego_operator::presence::kubernetes::{CELL, MARK, Sighting};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, sleep_until};

use super::Log;
use super::facts::Fact;

/// Between two tries to reach the server.
const PAUSE: Duration = Duration::from_millis(200);

/// Where nothing is timed.
const NEVER: Duration = Duration::from_secs(3600);

/// A presence that is there.
struct Held {
    epoch: i64,
    version: i64,
    ttl: Duration,
    until: Instant,
}

/// Tells of every presence that comes and goes, for as long as it is polled.
pub async fn presences(client: Client, log: Log) {
    let config = watcher::Config::default().labels(&format!("{MARK}={CELL}"));
    let mut events = watcher(Api::<Lease>::default_namespaced(client), config).boxed();
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    let mut hears = false;
    // When the try under way began, and since when the server may be back: others may have heard it before.
    let (mut tried, mut away) = (Instant::now(), Instant::now());
    loop {
        let first = held.values().map(|one| one.until).min();
        let first = first.filter(|_| hears);
        let event = tokio::select! {
            // What was heard already comes before what was not.
            biased;
            event = events.next() => event,
            () = sleep_until(first.unwrap_or_else(|| Instant::now() + NEVER)) => {
                expire(&mut held, &log);
                continue;
            }
        };
        // A watch that broke goes on where it was, or begins anew with a list.
        let heard = matches!(event, Some(Ok(Event::Apply(_) | Event::InitDone)));
        if heard && !std::mem::replace(&mut hears, true) {
            // Who renewed meanwhile is not known: whoever is there has all of its time again.
            for one in held.values_mut() {
                one.until = one.until.max(away + one.ttl);
            }
        }
        match event {
            Some(Ok(Event::Apply(lease) | Event::InitApply(lease))) => {
                see(&lease, &mut held, &log);
            }
            // Without a word before, it is silent like one that is not renewed.
            Some(Ok(Event::Delete(lease))) => {
                let seen = Sighting::of(&lease);
                let last = seen.and_then(|seen| seen.presence(0));
                if let Some(last) = last.filter(|last| leaves(last.phase()))
                    && held.remove(&last.cell).is_some()
                {
                    gone(&log, last.cell, last.epoch);
                }
            }
            Some(Ok(Event::Init)) => hears = false,
            Some(Ok(Event::InitDone)) => {}
            Some(Err(_)) => {
                // A watch may break although the server is there; where a list fails, it was away when that began.
                if !hears {
                    away = tried;
                }
                hears = false;
                sleep(PAUSE).await;
                tried = Instant::now();
            }
            None => return,
        }
    }
}

fn leaves(phase: PresencePhase) -> bool {
    matches!(phase, PresencePhase::Released | PresencePhase::Restarting)
}

fn gone(log: &Log, cell: String, epoch: i64) {
    log.add(Fact::Gone { cell, epoch });
}

fn expire(held: &mut BTreeMap<String, Held>, log: &Log) {
    let now = Instant::now();
    held.retain(|cell, one| {
        let is_over = one.until <= now;
        if is_over {
            gone(log, cell.clone(), one.epoch);
        }
        !is_over
    });
}

fn see(lease: &Lease, held: &mut BTreeMap<String, Held>, log: &Log) {
    let Some(seen) = Sighting::of(lease) else {
        return;
    };
    let before = held.get(&seen.cell);
    if before.is_some_and(|before| before.version >= seen.version) {
        return;
    }
    let before = before.map(|before| before.epoch);
    let Some(now) = seen.presence(seen.version) else {
        return;
    };
    if before != Some(now.epoch) {
        if let Some(epoch) = before {
            gone(log, now.cell.clone(), epoch);
        }
        log.add(Fact::Registered {
            cell: now.cell.clone(),
            epoch: now.epoch,
        });
    }
    let one = Held {
        epoch: now.epoch,
        version: seen.version,
        ttl: seen.ttl(),
        until: Instant::now() + seen.ttl(),
    };
    held.insert(now.cell, one);
}
