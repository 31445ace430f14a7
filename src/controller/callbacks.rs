//! Delivering completion callbacks: each in a task of its own, so that no receiver holds up a lane.
//!
//! A delivery waits for a slot, of which one receiver gets no more than a share, makes itself the owner by a
//! compare-and-swap to Resolving, sends, and writes what came of it. Whoever is the controller when that does not come
//! to its end finds the Task Resolving, and kicks it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Task;
use crate::backoff::{Backoff, chance};
use crate::callback::slots::{Counts, Slots};
use crate::callback::{Body, Courier, Delivery};
use crate::client::CALL_TIMEOUT;
use crate::config::TaskArgs;
use crate::converge::plan::{self, Write};
use crate::converge::task::{self, Settlement};
use crate::converge::world::Key;
use crate::metrics::CallbackLabel;

use super::context::Context;
use super::events::reference;
use super::execute;

/// After a write that failed, the Task is looked at again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// A stop waits for deliveries under way, but no longer than this: the kubelet gives a Pod 30 s.
const LONGEST_STOP: Duration = Duration::from_secs(20);

/// What deliveries share.
pub struct Callbacks {
    courier: Courier,
    /// One per delivery under way.
    slots: Slots,
    under_way: TaskTracker,
    /// No delivery begins any more.
    stopping: CancellationToken,
    /// The longest that a delivery takes, with its two writes.
    longest: Duration,
}

impl Callbacks {
    /// Nothing is under way yet.
    pub fn new(courier: Courier, args: &TaskArgs) -> Self {
        let count = args.callback_concurrency as usize;
        Callbacks {
            courier,
            // A quarter, so that receivers that hang leave room for the others.
            slots: Slots::new(count, count.div_ceil(4)),
            under_way: TaskTracker::new(),
            stopping: CancellationToken::new(),
            longest: Courier::longest(args.callback_timeout()) + 2 * CALL_TIMEOUT,
        }
    }

    /// How many deliveries are under way, and how many wait.
    pub fn counts(&self) -> Counts {
        self.slots.counts()
    }

    /// Begins no delivery any more and lets those under way come to their end: a receiver whose answer is not written
    /// down would be told again.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.under_way.close();
        let limit = self.longest.min(LONGEST_STOP);
        let count = self.under_way.len().saturating_sub(self.counts().waiting);
        if count > 0 {
            tracing::info!(count, ?limit, "waiting for completion callbacks under way");
        }
        if tokio::time::timeout(limit, self.under_way.wait())
            .await
            .is_err()
        {
            let count = self.under_way.len();
            tracing::warn!(
                count,
                "completion callbacks are cut off: their receivers may be told again"
            );
        }
    }
}

/// Starts the delivery of a Task's callback, if this process is not at it already, nor about to end.
pub fn begin(context: &Arc<Context>, key: &Key) {
    let callbacks = &context.callbacks;
    if callbacks.stopping.is_cancelled() {
        return;
    }
    let begun = context.world(|world| {
        let task = world.task(key)?;
        let (uid, receiver) = (task.version.uid.clone(), task.callback.clone()?);
        world.begin_delivery(key).then_some((uid, receiver))
    });
    let Some((uid, receiver)) = begun else { return };
    let delivery = UnderWay {
        context: context.clone(),
        key: key.clone(),
        uid,
        receiver,
    };
    callbacks
        .under_way
        .spawn(async move { delivery.run().await });
}

/// A delivery of this process; it ends with the value, and then the Task is looked at again.
struct UnderWay {
    context: Arc<Context>,
    key: Key,
    uid: String,
    /// Host and port.
    receiver: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.context.world(|world| world.end_delivery(&self.key));
        self.context.wake_task(&self.key);
    }
}

impl UnderWay {
    async fn run(&self) {
        let context = &self.context;
        let Callbacks {
            courier,
            slots,
            stopping,
            ..
        } = &context.callbacks;
        // A Task that waits here is still Completed: its kick does not run yet.
        let slot = stopping.run_until_cancelled(slots.acquire(&self.receiver));
        let Some(Some(slot)) = slot.await else { return };
        let began = Instant::now();
        let Some(task) = self.own().await else { return };
        let (body, url) = (Body::of(&task), task.spec.completion_callback_url);
        let Ok(json) = serde_json::to_vec(&body) else {
            return;
        };
        let url = url.unwrap_or_default();
        let kick = Duration::try_from(context.rules.tasks.kick).unwrap_or_default();
        let delivery = courier.deliver(&url, &json);
        // Only a process that was stopped for a while comes so far: somebody else may be the owner then.
        let left = kick.saturating_sub(began.elapsed());
        let over = |_| Delivery::Unanswered("the time to deliver it is over".into());
        let delivery = tokio::time::timeout(left, delivery).await;
        let delivery = delivery.unwrap_or_else(over);
        drop(slot);
        let metrics = &context.metrics;
        metrics
            .callback_duration
            .observe(began.elapsed().as_secs_f64());
        let result = result(&delivery);
        metrics
            .callbacks
            .get_or_create(&CallbackLabel { result })
            .inc();
        tracing::debug!(task = %self.key, result, "the completion callback was sent");
        match delivery {
            Delivery::Settled(how) => {
                if let Some(reason) = how.warning() {
                    self.warn(reason, how.condition().2);
                }
                self.settle(&how).await;
            }
            Delivery::Unanswered(problem) => {
                let note = format!(
                    "Nobody took the completion callback: {problem}. It is tried again until the Task is deleted."
                );
                self.warn("TaskCallbackUnanswered", note);
            }
        }
    }

    /// Makes this delivery the owner. `None` when somebody else is, or the Task has moved on.
    async fn own(&self) -> Option<Task> {
        let context = &self.context;
        let write = context.world(|world| {
            let limits = &context.rules.tasks;
            plan::resolve(world, &self.key, &self.uid, limits, Timestamp::now())
        })?;
        match execute::write_task(context, &context.slow, &write).await {
            Ok(task) => task,
            Err(error) => {
                tracing::debug!(task = %self.key, %error, "the completion callback is not begun");
                if !error.is_conflict() && !error.is_not_found() {
                    tokio::time::sleep(RETRY).await;
                }
                None
            }
        }
    }

    /// Writes how it was settled, for as long as it takes: without that it would be delivered again. A write that the
    /// API server refuses for good is given up at the Task's age, from which on it is only deleted.
    async fn settle(&self, how: &Settlement) {
        let context = &self.context;
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut told = false;
        while let Some(write) = self.settling(how) {
            match execute::write_task(context, &context.slow, &write).await {
                Ok(_) => return,
                Err(error) => {
                    let refused = error.is_refused();
                    if refused && !told {
                        told = true;
                        tracing::warn!(task = %self.key, %error, "what came of the completion callback can't be written; it is tried until the Task's age");
                        let note = format!(
                            "What came of the completion callback can't be written: {error}"
                        );
                        self.warn("TaskCallbackNotRecorded", note);
                    }
                    if refused && self.is_of_age() {
                        return self.expire().await;
                    }
                    tracing::debug!(task = %self.key, %error, "what came of the completion callback is not written yet");
                    tokio::time::sleep(pause.pause(chance())).await;
                }
            }
        }
    }

    fn settling(&self, how: &Settlement) -> Option<Write> {
        let now = Timestamp::now();
        self.context
            .world(|world| plan::settle(world, &self.key, &self.uid, how, now))
    }

    /// Not left to the lanes, which don't know that it was settled.
    async fn expire(&self) {
        let context = &self.context;
        let write = context.world(|world| plan::expire(world, &self.key, &self.uid));
        let Some(write) = write else { return };
        if let Err(error) = execute::write_task(context, &context.slow, &write).await {
            tracing::debug!(task = %self.key, %error, "it is not deleted yet");
        }
    }

    fn is_of_age(&self) -> bool {
        let limits = &self.context.rules.tasks;
        self.context.world(|world| {
            let task = world.task(&self.key);
            task.is_none_or(|task| task::expires(task, limits) <= Timestamp::now())
        })
    }

    fn warn(&self, reason: &str, note: String) {
        let Key { namespace, name } = &self.key;
        let about = reference("Task", Some(namespace), name, &self.uid);
        self.context.events.warning(about, reason, "Deliver", note);
    }
}

/// The label of the metric.
fn result(delivery: &Delivery) -> &'static str {
    match delivery {
        Delivery::Settled(how @ Settlement::Answered { .. }) => match how.warning() {
            None => "delivered",
            Some(_) => "refused",
        },
        Delivery::Settled(Settlement::HostNotAllowed { .. } | Settlement::InvalidUrl { .. }) => {
            "not_allowed"
        }
        Delivery::Unanswered(_) => "unanswered",
    }
}
