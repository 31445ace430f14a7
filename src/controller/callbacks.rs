//! Delivering completion callbacks: each in a task of its own, so that no receiver holds up a lane.
//!
//! A delivery waits for a slot, makes itself the owner by a compare-and-swap to Resolving, sends, and writes what came
//! of it. Whoever is the controller when that does not come to its end finds the Task Resolving, and kicks it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::api::Task;
use crate::backoff::{Backoff, chance};
use crate::callback::{Body, Courier, Delivery};
use crate::converge::plan::{self, Write};
use crate::converge::task::Settlement;
use crate::converge::world::Key;
use crate::metrics::CallbackLabel;

use super::context::Context;
use super::events::reference;
use super::execute;

/// After a write that failed, the Task is looked at again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// What deliveries share.
pub struct Callbacks {
    /// Sends.
    pub courier: Courier,
    /// One permit per delivery under way.
    pub slots: Semaphore,
}

/// Starts the delivery of a Task's callback, if this process is not at it already.
pub fn begin(context: &Arc<Context>, key: &Key) {
    if context.world(|world| world.begin_delivery(key)) {
        let delivery = UnderWay {
            context: context.clone(),
            key: key.clone(),
        };
        tokio::spawn(async move { delivery.run().await });
    }
}

/// A delivery of this process; it ends with the value, and then the Task is looked at again.
struct UnderWay {
    context: Arc<Context>,
    key: Key,
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
        // Never closed. A Task that waits here is still Completed: its kick does not run yet.
        let Ok(slot) = context.callbacks.slots.acquire().await else {
            return;
        };
        let began = Instant::now();
        let Some(task) = self.own().await else { return };
        let (body, url) = (Body::of(&task), task.spec.completion_callback_url);
        let Ok(json) = serde_json::to_vec(&body) else {
            return;
        };
        let url = url.unwrap_or_default();
        let kick = Duration::try_from(context.rules.tasks.kick).unwrap_or_default();
        let delivery = context.callbacks.courier.deliver(&url, &json);
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
                    self.warn(&body.uid, reason, how.condition().2);
                }
                self.settle(&body.uid, &how).await;
            }
            Delivery::Unanswered(problem) => {
                let note =
                    format!("Nobody took the completion callback: {problem}. It is tried again.");
                self.warn(&body.uid, "TaskCallbackUnanswered", note);
            }
        }
    }

    /// Makes this delivery the owner. `None` when somebody else is, or the Task has moved on.
    async fn own(&self) -> Option<Task> {
        let context = &self.context;
        let write = context.world(|world| plan::resolve(world, &self.key, Timestamp::now()))?;
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

    /// Writes how it was settled, for as long as it takes: without that it would be delivered again.
    async fn settle(&self, uid: &str, how: &Settlement) {
        let context = &self.context;
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Some(write) = self.settling(uid, how) {
            match execute::write_task(context, &context.slow, &write).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(task = %self.key, %error, "what came of the completion callback is not written yet");
                    tokio::time::sleep(pause.pause(chance())).await;
                }
            }
        }
    }

    fn settling(&self, uid: &str, how: &Settlement) -> Option<Write> {
        let now = Timestamp::now();
        self.context
            .world(|world| plan::settle(world, &self.key, uid, how, now))
    }

    fn warn(&self, uid: &str, reason: &str, note: String) {
        let about = reference("Task", Some(&self.key.namespace), &self.key.name, uid);
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
