//! Who is looked at, and when: the loop that owns the queue and hears of Pods.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::queue::Queue;
use super::settle::{Outcome, settle, version};
use super::{Templates, Wake};
use crate::client::bounded;
use crate::controller::context::Context;
use crate::controller::feed::Listed;
use crate::converge::pods::{LABEL_GUID, WorkKey};
use crate::converge::world::World;
use crate::watching;

/// So many records are looked at at once; the calls that this makes are bounded by the lane's permits.
const AT_ONCE: usize = 256;

/// A time that is due is looked at so much later, so that it is due on any clock that rounds.
const LATER: Duration = Duration::from_millis(5);

/// What was forbidden is asked for again this often.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(15);

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
    listed: Listed,
) {
    // What is asked for before all is listed comes to everything anyway.
    let ignored = async { while wakes.recv().await.is_some() {} };
    let mut pods = tokio::select! {
        pods = list(&context, listed) => pods,
        () = ignored => return,
    };
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
            _ = resync.tick() => dispatch.resync(),
        }
    }
}

impl Dispatch {
    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Work(work) => match self.queue.pauses_on(&work) {
                Some(failed_on) if self.known(&work) != failed_on => self.queue.ask_now(work),
                Some(_) | None => self.queue.ask(work),
            },
            Wake::Cell(cell) => {
                for work in self.on_cell(&cell) {
                    self.queue.ask_now(work);
                }
            }
            Wake::Term => {
                // Another leader may have gone on from what is held here.
                self.context.pods.index(|index| index.release_all());
                self.everything(Queue::ask_now);
            }
        }
    }

    fn known(&self, work: &WorkKey) -> Option<u64> {
        self.context.world(|world| version(world, work))
    }

    fn on_cell(&self, cell: &str) -> BTreeSet<WorkKey> {
        let mut works = self.context.world(|world| world.works_on(cell));
        works.extend(self.context.pods.index(|index| index.on_cell(cell)));
        works
    }

    /// Looks at everything when nobody else is waiting. A controller that does not lead has nothing to do.
    fn resync(&mut self) {
        if self.context.leading() {
            self.everything(Queue::ask_idly);
        }
    }

    /// Cell by Cell, so that nobody waits long for what is known.
    fn everything(&mut self, ask: fn(&mut Queue, WorkKey)) {
        let mut cells: BTreeSet<String> = self
            .context
            .world(|world| world.cells_of_pods().into_iter().collect());
        cells.extend(self.context.pods.index(|index| index.cells()));
        for cell in cells {
            for work in self.on_cell(&cell) {
                ask(&mut self.queue, work);
            }
        }
        let waiting = |world: &mut World| world.works_of_schedulers().collect::<Vec<_>>();
        let waiting = self.context.world(waiting);
        let loose = self.context.pods.index(|index| index.off_cells());
        for work in waiting.into_iter().chain(loose) {
            ask(&mut self.queue, work);
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
                (error.id(), Outcome::Panicked)
            }
        };
        let Some(work) = self.of.remove(&id) else {
            return;
        };
        match outcome {
            Outcome::Settled(due) => self.queue.done(&work, due.map(instant)),
            Outcome::Panicked => {
                let known = self.known(&work);
                self.queue.failed(&work, known, Instant::now());
            }
            Outcome::Again(failed_on) => {
                self.queue.failed(&work, failed_on, Instant::now());
                // What was asked for meanwhile may be about another version.
                if self.known(&work) != failed_on {
                    self.queue.ask_now(work);
                }
            }
        }
    }
}

/// Enters the Pods that are there, and returns all that happens to them from then on.
async fn list(context: &Context, mut listed: Listed) -> BoxStream<'static, Event<Pod>> {
    let client = context.pods.lane.client.clone();
    let api = Api::<Pod>::all(client.clone());
    until_allowed(&api, &mut listed).await;
    // All Pods with our label.
    let mut pods = watching::readable::<Pod>(client, Config::default().labels(LABEL_GUID), |_| {});
    while let Some(event) = pods.next().await {
        let done = matches!(event, Event::InitDone);
        hear(context, event);
        if done {
            break;
        }
    }
    listed.done();
    // Before, what is not there says nothing.
    context.synced().await;
    pods
}

/// Waits while the API server forbids to read Pods, which is told once. Nobody else waits: without Cells on nodes there is
/// no need of that right.
async fn until_allowed(api: &Api<Pod>, listed: &mut Listed) {
    let one = ListParams::default().labels(LABEL_GUID).limit(1);
    let mut told = false;
    loop {
        match bounded(api.list_metadata(&one)).await {
            Err(error) if error.is_forbidden() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        %error,
                        "our Pods can't be read: what is placed on Cells with executor Pods does not start. Let this controller get, list, watch, create and delete pods, or go on without such Cells"
                    );
                    listed.done();
                }
            }
            // Whatever else is wrong, the watch tells of it and tries again.
            Ok(_) | Err(_) => break,
        }
        tokio::time::sleep(FORBIDDEN_RETRY).await;
    }
    if told {
        tracing::info!("our Pods can be read now");
    }
}

/// Enters what happened. Returns the records it concerns.
fn hear(context: &Context, event: Event<Pod>) -> Vec<WorkKey> {
    context.pods.index(|index| match event {
        Event::Init => {
            index.begin_relist();
            Vec::new()
        }
        Event::InitApply(pod) | Event::Apply(pod) => index.enter(&pod).into_iter().collect(),
        Event::InitDone => index.end_relist(),
        Event::Delete(pod) => index.leave(&pod).into_iter().collect(),
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
