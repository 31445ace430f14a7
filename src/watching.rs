//! Watching one kind: dead connections show in seconds, broken watches are begun again, and an outage is
//! logged once, not per try.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::backoff::{Backoff, chance};
use crate::client;

/// The server ends a watch after so many seconds, and one that has brought nothing five seconds later is dead.
/// kube's default is 295 s, in which a lost assignment or Cell would go unseen.
const WATCH_SECONDS: u32 = 20;

/// Pauses before a broken watch is begun again grow from the one to the other. kube's default goes to 30 s,
/// too long for what a recovery depends on.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// All that happens to the objects of one kind, for ever.
pub fn events<K>(api: Api<K>, config: watcher::Config) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    events_telling(api, config, |_| {})
}

/// The same; `tell` hears why the watch is begun again each time that it broke.
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
