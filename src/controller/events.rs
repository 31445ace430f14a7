//! Publishing Kubernetes Events without ever holding up a lane.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::client::bounded;

/// So many Events may wait; a mass loss makes one per Cell.
const QUEUE: usize = 2048;

/// Takes Events; they are published one after the other by a task of its own.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    dropped: Counter,
}

impl EventSink {
    /// A sink and the task that publishes.
    pub fn new(client: Client, dropped: Counter) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let publisher = async move {
            let instance = std::env::var("HOSTNAME").ok();
            let recorder = Recorder::new(
                client,
                Reporter {
                    controller: "diego-controller".into(),
                    instance,
                },
            );
            while let Some((event, reference)) = waiting.recv().await {
                if let Err(error) = bounded(recorder.publish(&event, &reference)).await {
                    tracing::debug!(%error, reason = event.reason, "an Event was not published");
                }
            }
        };
        (EventSink { queue, dropped }, publisher)
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
