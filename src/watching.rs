//! Watching one kind: dead connections show in seconds, broken watches are begun again, and an outage is
//! logged once, not per try.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::backoff::{Backoff, chance};
use crate::client;
use crate::lenient::Lenient;

/// The server ends a watch after so many seconds, and one that has brought nothing five seconds later is dead.
/// kube's default is 295 s, in which a lost assignment or Cell would go unseen.
const WATCH_SECONDS: u32 = 20;

/// So many objects that can't be read are remembered as told.
const TOLD: usize = 1024;

/// Pauses before a broken watch is begun again grow from the one to the other. kube's default goes to 30 s,
/// too long for what a recovery depends on.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// All that happens to all objects of one kind that can be read, for ever. What can't be read is told once for each of its
/// versions and passed over; `tell` hears why the watch is begun again each time that it broke.
pub fn readable<K>(
    client: Client,
    config: watcher::Config,
    tell: impl Fn(&'static str) + Clone + Send + Sync + 'static,
) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || {
        let api = Api::<Lenient<K>>::all(client.clone());
        events_telling(api, config.clone(), tell.clone())
    };
    let told = HashMap::new();
    stream::unfold(
        (begin(), begin, told),
        |(mut items, begin, mut told)| async move {
            loop {
                let event = match items.next().await? {
                    Event::Init => Event::Init,
                    Event::InitDone => Event::InitDone,
                    Event::InitApply(Lenient::Read(object)) => Event::InitApply(*object),
                    Event::Apply(Lenient::Read(object)) => Event::Apply(*object),
                    Event::Delete(Lenient::Read(object)) => Event::Delete(*object),
                    Event::InitApply(Lenient::Unreadable { meta, problem })
                    | Event::Apply(Lenient::Unreadable { meta, problem }) => {
                        passed_over::<K>(&mut told, *meta, &problem);
                        continue;
                    }
                    // What it was before may be known: a list says that it is gone.
                    Event::Delete(Lenient::Unreadable { .. }) => {
                        items = begin();
                        continue;
                    }
                };
                return Some((event, (items, begin, told)));
            }
        },
    )
    .boxed()
}

/// `told` has the version of each object that was told last.
fn passed_over<K: Resource<DynamicType = ()>>(
    told: &mut HashMap<Option<String>, Option<String>>,
    meta: ObjectMeta,
    problem: &str,
) {
    if told.len() >= TOLD {
        told.clear();
    }
    if told.insert(meta.uid, meta.resource_version.clone()) == Some(meta.resource_version) {
        return;
    }
    let (name, namespace) = (meta.name.unwrap_or_default(), meta.namespace);
    tracing::warn!(
        kind = %K::kind(&()),
        name,
        namespace,
        problem,
        "this object can't be read and is passed over: nothing is done about it until it is mended or deleted. Was it written by a later version?"
    );
}

/// All that happens to the objects of one kind, for ever; `tell` hears why the watch is begun again each time that it
/// broke.
pub fn events_telling<K>(
    api: Api<K>,
    config: watcher::Config,
    tell: impl Fn(&'static str) + Clone + Send + Sync + 'static,
) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let items = watcher(api, config.timeout(WATCH_SECONDS)).boxed();
    let pauses = Backoff::new(RETRY_MIN, RETRY_MAX);
    stream::unfold(
        (items, pauses, false),
        move |(mut items, mut pauses, mut broken)| {
            let (kind, tell) = (kind.clone(), tell.clone());
            async move {
                loop {
                    match items.next().await? {
                        // Comes before every list, also before one that fails: it proves nothing.
                        Ok(Event::Init) => return Some((Event::Init, (items, pauses, broken))),
                        Ok(event) => {
                            pauses.reset();
                            if std::mem::take(&mut broken) {
                                tracing::info!(kind, "the watch works again");
                            }
                            return Some((event, (items, pauses, broken)));
                        }
                        Err(error) => {
                            tell(reason(&error));
                            if !std::mem::replace(&mut broken, true) {
                                let problem = brief(&error);
                                tracing::warn!(kind, problem, "the watch broke; trying again");
                            }
                            tokio::time::sleep(pauses.pause(chance())).await;
                        }
                    }
                }
            }
        },
    )
    .boxed()
}

/// The label `reason` of a watch that is begun again.
fn reason(error: &watcher::Error) -> &'static str {
    match error {
        watcher::Error::WatchError(status) if status.code == 410 => "compacted",
        // The answer ended in the middle: the connection, not the server, said so.
        watcher::Error::WatchFailed(_) => "closed",
        watcher::Error::WatchError(_)
        | watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::NoResourceVersion => "error",
    }
}

/// The server's own words where there are any.
fn brief(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => client::brief(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        other => other.to_string(),
    }
}
