//! Publishing Kubernetes Events without ever holding up a lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use crate::client::bounded;

/// So many Events may wait: one per instance of a recovery, and one per Cell.
const QUEUE: usize = 2048;

/// So many Events are remembered, so that one that says the same again becomes a series.
const REMEMBERED: usize = 1024;

/// No Event is held back for longer, however many recoveries follow each other.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// Takes Events; they are published one after the other by a task of its own.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    dropped: Counter,
    /// How many recoveries are under way: the API server is theirs meanwhile.
    recoveries: Arc<watch::Sender<usize>>,
}

/// While it lives no Event is published.
pub struct Hold(Arc<watch::Sender<usize>>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|recoveries| *recoveries -= 1);
    }
}

impl EventSink {
    /// A sink and the task that publishes.
    pub fn new(client: Client, dropped: Counter) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let recoveries = Arc::new(watch::Sender::new(0));
        let mut held = recoveries.subscribe();
        let publisher = async move {
            let instance = std::env::var("HOSTNAME").ok();
            let reporter = Reporter {
                controller: "diego-controller".into(),
                instance,
            };
            let mut recorders: HashMap<(Option<String>, String), (Option<String>, Recorder)> =
                HashMap::new();
            let mut patience = LONGEST_HOLD;
            while let Some((event, reference)) = waiting.recv().await {
                wait_for_recoveries(&mut held, &mut patience).await;
                if recorders.len() >= REMEMBERED {
                    recorders.clear();
                }
                // A recorder makes a series of what has the same reason, and keeps the first note: only what says
                // the same again may go to the same one.
                let told = (reference.uid.clone(), event.reason.clone());
                if recorders
                    .get(&told)
                    .is_none_or(|(note, _)| *note != event.note)
                {
                    let recorder = Recorder::new(client.clone(), reporter.clone());
                    recorders.insert(told.clone(), (event.note.clone(), recorder));
                }
                if let Some((_, recorder)) = recorders.get(&told)
                    && let Err(error) = bounded(recorder.publish(&event, &reference)).await
                {
                    tracing::debug!(%error, reason = event.reason, "an Event was not published");
                }
            }
        };
        let sink = EventSink {
            queue,
            dropped,
            recoveries,
        };
        (sink, publisher)
    }

    /// Holds all Events back until what is returned is dropped.
    pub fn hold(&self) -> Hold {
        self.recoveries.send_modify(|recoveries| *recoveries += 1);
        Hold(self.recoveries.clone())
    }

    /// Publishes something expected.
    pub fn normal(&self, about: ObjectReference, reason: &str, action: &str, note: String) {
        self.send(EventType::Normal, about, reason, action, note);
    }

    /// Publishes something unexpected.
    pub fn warning(&self, about: ObjectReference, reason: &str, action: &str, note: String) {
        self.send(EventType::Warning, about, reason, action, note);
    }

    fn send(
        &self,
        type_: EventType,
        about: ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let note = Some(note.chars().take(1000).collect());
        let event = Event {
            type_,
            reason: reason.into(),
            action: action.into(),
            note,
            secondary: None,
        };
        if self.queue.try_send((event, about)).is_err() {
            self.dropped.inc();
        }
    }
}

/// Waits while recoveries are under way, but no longer than `patience` in all until there is none again: one that can't
/// get its verdict, because the presence store is away, must not hold back what is told of everything else.
async fn wait_for_recoveries(held: &mut watch::Receiver<usize>, patience: &mut Duration) {
    let began = Instant::now();
    // The sink, which holds the sender, may be gone first.
    let quiet = held.wait_for(|recoveries| *recoveries == 0);
    match tokio::time::timeout(*patience, quiet).await {
        Ok(_) => *patience = LONGEST_HOLD,
        Err(_) => *patience = patience.saturating_sub(began.elapsed()),
    }
}

/// A reference to one of our objects.
pub fn reference(kind: &str, namespace: Option<&str>, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", crate::api::GROUP, crate::api::VERSION)),
        kind: Some(kind.into()),
        namespace: namespace.map(Into::into),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recovery_that_does_not_end_holds_events_back_once() {
        let recoveries = watch::Sender::new(1);
        let mut held = recoveries.subscribe();
        let mut patience = Duration::from_millis(50);
        wait_for_recoveries(&mut held, &mut patience).await;
        wait_for_recoveries(&mut held, &mut patience).await;
        let began = Instant::now();
        for _ in 0..100 {
            wait_for_recoveries(&mut held, &mut patience).await;
        }
        assert!(
            began.elapsed() < LONGEST_HOLD,
            "each Event is held back anew"
        );
        recoveries.send_replace(0);
        wait_for_recoveries(&mut held, &mut patience).await;
        assert_eq!(
            patience, LONGEST_HOLD,
            "the next recovery may hold them back again"
        );
    }
}
