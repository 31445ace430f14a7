//! Who is looked at, and when: the loop that owns the queue and hears of Pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::queue::Queue;
use super::settle::{Outcome, settle};
use super::{Templates, Wake};
use crate::controller::context::Context;
use crate::controller::convert::key;
use crate::converge::pods::{LABEL_GUID, PodRecord, WorkKey};
use crate::watching;

/// So many records are looked at at once; the calls that this makes are bounded by the lane's permits.
const AT_ONCE: usize = 256;

/// A time that is due is looked at so much later, so that it is due on any clock that rounds.
const LATER: Duration = Duration::from_millis(5);

struct Dispatch {
    context: Arc<Context>,
    templates: Templates,
    queue: Queue,
    looks: JoinSet<Outcome>,
    /// Who is being looked at by which task.
    of: HashMap<Id, WorkKey>,
}

/// Runs the executor, for ever.
pub async fn run(
    context: Arc<Context>,
    templates: Templates,
    mut wakes: mpsc::UnboundedReceiver<Wake>,
) {
    let mut pods = watch(&context);
    // Before, what is not there says nothing.
    context.synced().await;
    while let Some(event) = pods.next().await {
        let done = matches!(event, Event::InitDone);
        hear(&context, event);
        if done {
            break;
        }
    }
    let mut dispatch = Dispatch {
        context: context.clone(),
        templates,
        queue: Queue::default(),
        looks: JoinSet::new(),
        of: HashMap::new(),
    };
    let mut resync = tokio::time::interval(context.interval);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        dispatch.begin();
        let due = dispatch.queue.next_due();
        tokio::select! {
            Some(wake) = wakes.recv() => {
                dispatch.wake(wake);
                while let Ok(wake) = wakes.try_recv() {
                    dispatch.wake(wake);
                }
            }
            Some(event) = pods.next() => {
                for work in hear(&context, event) {
                    dispatch.queue.ask(work);
                }
            }
            Some(ended) = dispatch.looks.join_next_with_id(), if !dispatch.looks.is_empty() => dispatch.ended(ended),
            () = sleep_until(due) => dispatch.queue.ring(Instant::now()),
            _ = resync.tick() => dispatch.everything(),
        }
    }
}

impl Dispatch {
    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Work(work) => self.queue.ask(work),
            Wake::Cell(cell) => {
                let named = self.context.world(|world| world.works_on(&cell));
                let there = self.context.pods.index(|index| index.on_cell(&cell));
                for work in named.into_iter().chain(there) {
                    self.queue.ask(work);
                }
            }
            Wake::Term => {
                // Another leader may have gone on from what is held here.
                self.context.pods.index(|index| index.release_all());
                self.everything();
            }
        }
    }

    fn everything(&mut self) {
        let named = self.context.world(|world| world.works_of_pods());
        let there = self.context.pods.index(|index| index.works());
        for work in named.into_iter().chain(there) {
            self.queue.ask(work);
        }
    }

    /// Begins as many looks as may be. While another controller leads they come to nothing at once.
    fn begin(&mut self) {
        while self.looks.len() < AT_ONCE
            && let Some(work) = self.queue.take()
        {
            let failures = self.queue.failures(&work);
            let (context, templates) = (self.context.clone(), self.templates.clone());
            let look = settle(context, templates, work.clone(), failures);
            let id = self.looks.spawn(look).id();
            self.of.insert(id, work);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), tokio::task::JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => {
                tracing::error!(%error, "a look at a record and its Pods panicked: please report this");
                (error.id(), Outcome::Again)
            }
        };
        let Some(work) = self.of.remove(&id) else {
            return;
        };
        match outcome {
            Outcome::Settled(due) => self.queue.done(&work, due.map(instant)),
            Outcome::Again => self.queue.failed(&work, Instant::now()),
        }
    }
}

/// All that happens to Pods with our label.
fn watch(context: &Context) -> BoxStream<'static, Event<Pod>> {
    let api = Api::<Pod>::all(context.pods.lane.client.clone());
    watching::events(api, Config::default().labels(LABEL_GUID))
}

/// Enters what happened. Returns the records it concerns.
fn hear(context: &Context, event: Event<Pod>) -> Vec<WorkKey> {
    context.pods.index(|index| match event {
        Event::Init => {
            index.begin_relist();
            Vec::new()
        }
        Event::InitApply(pod) | Event::Apply(pod) => {
            let record = PodRecord::read(&pod);
            let work = record.as_ref().map(|record| record.work.clone());
            let news = record.is_some_and(|record| index.put(record));
            work.filter(|_| news).into_iter().collect()
        }
        Event::InitDone => index.end_relist(),
        Event::Delete(pod) => {
            let gone = index.remove(&key(&pod), &pod.uid().unwrap_or_default());
            gone.into_iter().collect()
        }
    })
}

/// The instant of a time of the wall clock.
fn instant(due: Timestamp) -> Instant {
    let left = due.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default() + LATER
}

/// Sleeps until then; without a time, for ever.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
