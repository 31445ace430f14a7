//! Publishing Kubernetes Events without ever holding up a lane.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use crate::client::bounded;
use crate::sync::locked;

/// So many Events may wait: one per instance of a recovery. Those of Cells wait for themselves, and are published first.
const QUEUE: usize = 2048;

/// So many Events are remembered, so that one that says the same again becomes a series.
const REMEMBERED: usize = 1024;

/// No Event is held back for longer, however many recoveries follow each other.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

type Waiting = (Event, ObjectReference);

/// Takes Events; they are published one after the other by a task of its own.
#[derive(Clone)]
pub struct EventSink {
    of_cells: mpsc::Sender<Waiting>,
    of_others: mpsc::Sender<Waiting>,
    dropped: Counter,
    unpublished: Arc<Mutex<Unpublished>>,
    /// How many recoveries are under way: the API server is theirs meanwhile.
    recoveries: Arc<watch::Sender<usize>>,
}

/// How many Events were dropped, by namespace, kind of object and reason.
type Unpublished = BTreeMap<(Option<String>, String, String), u64>;

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
        let (of_cells, mut cells) = mpsc::channel::<Waiting>(QUEUE);
        let (of_others, mut others) = mpsc::channel::<Waiting>(QUEUE);
        let recoveries = Arc::new(watch::Sender::new(0));
        let mut held = recoveries.subscribe();
        let unpublished: Arc<Mutex<Unpublished>> = Arc::default();
        let left_out = unpublished.clone();
        let publisher = async move {
            let mut publisher = Publisher::new(client);
            let mut patience = LONGEST_HOLD;
            loop {
                let (event, reference) = tokio::select! {
                    biased;
                    Some(event) = cells.recv() => event,
                    Some(event) = others.recv() => event,
                    else => break,
                };
                wait_for_recoveries(&mut held, &mut patience).await;
                publisher.publish(&event, &reference).await;
                if cells.is_empty() && others.is_empty() {
                    let left_out = std::mem::take(&mut *locked(&left_out));
                    for (what, count) in left_out {
                        let (event, reference) = summary(what, count);
                        publisher.publish(&event, &reference).await;
                    }
                }
            }
        };
        let sink = EventSink {
            of_cells,
            of_others,
            dropped,
            unpublished,
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
        let kind = about.kind.clone().unwrap_or_default();
        let queue = match &*kind {
            "Cell" => &self.of_cells,
            _ => &self.of_others,
        };
        let what = (about.namespace.clone(), kind, reason.to_owned());
        if queue.try_send((event, about)).is_err() {
            self.dropped.inc();
            *locked(&self.unpublished).entry(what).or_default() += 1;
        }
    }
}

/// Sends Events to the API server.
struct Publisher {
    client: Client,
    reporter: Reporter,
    /// What was said last with each reason about each object, and by whom.
    recorders: HashMap<(Option<String>, String), (Option<String>, Recorder)>,
}

impl Publisher {
    fn new(client: Client) -> Self {
        Publisher {
            client,
            reporter: Reporter {
                controller: "diego-controller".into(),
                instance: std::env::var("HOSTNAME").ok(),
            },
            recorders: HashMap::new(),
        }
    }

    async fn publish(&mut self, event: &Event, reference: &ObjectReference) {
        if self.recorders.len() >= REMEMBERED {
            self.recorders.clear();
        }
        // A recorder makes a series of what has the same reason, and keeps the first note: only what says the same
        // again may go to the same one.
        let told = (reference.uid.clone(), event.reason.clone());
        if self
            .recorders
            .get(&told)
            .is_none_or(|(note, _)| *note != event.note)
        {
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            let told = told.clone();
            self.recorders.insert(told, (event.note.clone(), recorder));
        }
        if let Some((_, recorder)) = self.recorders.get(&told)
            && let Err(error) = bounded(recorder.publish(event, reference)).await
        {
            tracing::debug!(%error, reason = event.reason, "an Event was not published");
        }
    }
}

/// One Event, on the namespace, that stands for many that were dropped.
fn summary(
    (namespace, kind, reason): (Option<String>, String, String),
    count: u64,
) -> (Event, ObjectReference) {
    tracing::warn!(
        namespace,
        kind,
        reason,
        count,
        "Events were not published: too many at once"
    );
    let note = format!(
        "{count} more Events {reason} were not published, too many being told of at once; the status of each {kind} says the same."
    );
    let event = Event {
        type_: EventType::Warning,
        reason: "EventsDropped".into(),
        action: "Publish".into(),
        note: Some(note),
        secondary: None,
    };
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Namespace".into()),
        name: namespace.clone().or(Some("default".into())),
        namespace,
        ..Default::default()
    };
    (event, about)
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
mod tests;
