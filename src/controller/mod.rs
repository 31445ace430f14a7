//! The controller: watches feed the world, lanes act on it.
//!
//! The fast lane (`recovery`) belongs to lost Cells alone and has a client of its own. The slow lanes
//! (`reconcile`) are kube-runtime controllers that are woken by changes and, as the safety net, look at
//! every object once per convergence interval. Both come to the same rules through `execute::converge`.

mod callbacks;
mod clients;
pub mod context;
mod convert;
mod events;
mod execute;
mod feed;
mod forget;
mod gauges;
mod guard;
mod held;
pub mod leader;
mod ledger;
mod load;
mod nodes;
mod pods;
mod reconcile;
mod recovery;
mod report;
mod runs;
mod taint;
mod turns;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc as trigger;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Config, Resource};
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::callback::{Courier, LookUps};
use crate::client::gate::Gate;
use crate::client::{self, ConnectError};
use crate::config::ControllerArgs;
use crate::converge::plan::Rules;
use crate::metrics::{ClientMetrics, ControllerMetrics, PodMetrics};
use crate::presence::PresenceEvent;
use crate::presence::store::{self, Opened, Watcher};

use callbacks::Callbacks;
use clients::Clients;
use context::{Context, Lane, Parts, Triggers};
use feed::{Dirty, Listed};
use leader::Election;
use pods::{Pods, Templates};
use taint::Taints;
use turns::Turns;

/// Failed reconciles are looked at again after this long.
const RETRY: Duration = Duration::from_secs(2);

/// Presence events that may wait; a mass loss of a thousand Cells fits.
const PRESENCE_QUEUE: usize = 4096;

/// How long a stop waits for the presence watch to end.
const WATCH_LEAVES: Duration = Duration::from_millis(1500);

/// Why the controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No API server.
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    /// No presence store.
    #[error(transparent)]
    Presence(#[from] store::ConnectError),
    /// No thread.
    #[error(
        "the thread of the leader election can't be started: {0}; raise the limit of processes"
    )]
    Thread(#[from] std::io::Error),
}

/// Runs the controller until `stop`. `ready` becomes true when all kinds are listed, whoever leads.
///
/// # Errors
/// When the API server or the presence store can't be reached at the start, or the CRDs are missing.
pub async fn run(
    args: &ControllerArgs,
    config: &Config,
    registry: &mut Registry,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + use<>, StartError> {
    let metrics = ControllerMetrics::new(registry);
    let client_metrics = ClientMetrics::new(registry);
    let gate = match args.leader.leader_elect {
        true => Gate::new_shut(),
        false => Gate::always_open(),
    };
    let Clients { fast, slow, pods } = Clients::new(config, &client_metrics, &gate)?;
    client::check(config, &slow).await?;
    client::check_crds(config, &slow).await?;
    let presence = args.common.store(config, &client_metrics);
    let endpoints = presence.own_addresses();
    let Opened { store, watcher } = store::open(presence).await?;

    let warm = clients::keep_open([fast.clone(), slow.clone(), pods.clone()]);
    let (events, publisher) = events::EventSink::new(slow.clone(), metrics.events_dropped.clone());
    let (cells, cell_triggers) = trigger::unbounded();
    let (desired, desired_triggers) = trigger::unbounded();
    let (tasks, task_triggers) = trigger::unbounded();
    let synced = ready.subscribe();
    let permits = args.write_concurrency as usize;
    let store_addresses = LookUps::default().of_urls(&endpoints).await;
    let policy = args.tasks.host_policy().guarding(store_addresses);
    let courier = Courier::new(policy, args.tasks.callback_timeout());
    let callbacks = Callbacks::new(courier, &args.tasks);
    let lane = |client: Client| Lane {
        client,
        turns: Turns::new(permits),
    };
    let (pods, wakes) = Pods::new(lane(pods), PodMetrics::new(registry));
    let (taints, nodes_to_taint) = Taints::new(args.nodes.node_taint);
    let context = Context::new(Parts {
        store,
        fast: lane(fast),
        slow: lane(slow.clone()),
        metrics: metrics.clone(),
        events,
        rules: Rules {
            tasks: args.tasks.limits(),
            auction: args.auction(),
        },
        interval: Duration::from_secs(args.convergence_interval_seconds),
        triggers: Triggers {
            cells,
            desired,
            tasks,
        },
        synced,
        callbacks,
        pods,
        taints,
        retention: args.nodes.retention(),
        mass_loss_threshold: args.nodes.mass_loss_threshold_percent,
        gate: gate.clone(),
    });
    gauges::register(registry, &context);
    let (began, terms) = watch::channel(0);
    // Cancelled when the lanes have stopped, so that nobody follows while they still write.
    let leave = CancellationToken::new();
    let left = if args.leader.leader_elect {
        let election = Election {
            config: config.clone(),
            metrics: client_metrics,
            namespace: args.common.namespace(config),
            timing: args.leader.timing(),
            gate,
            terms: began,
        };
        leader::start(election, ready.subscribe(), leave.clone())?
    } else {
        leave.clone()
    };
    let args = args.clone();
    // Outlives `stop`: the lanes work on while deliveries come to their end.
    let over = CancellationToken::new();
    Ok(async move {
        let dirty = Arc::new(Dirty::default());
        let listed = Listed::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(publisher);
        tasks.spawn(warm);
        let (watching, watched) = oneshot::channel::<()>();
        if args.disable_presence_watch {
            tracing::warn!(
                "the presence watch is off: lost Cells are found by the convergence passes alone"
            );
            tasks.spawn(watch_presence(watcher, None, over.clone(), watching));
        } else {
            let (sender, receiver) = mpsc::channel(PRESENCE_QUEUE);
            tasks.spawn(watch_presence(
                watcher,
                Some(sender),
                over.clone(),
                watching,
            ));
            tasks.spawn(recovery::run(context.clone(), receiver));
        }
        tasks.spawn(feed::actual_lrps(
            context.clone(),
            dirty.clone(),
            slow.clone(),
            listed.clone(),
        ));
        tasks.spawn(nodes::nodes(context.clone(), slow.clone(), listed.clone()));
        tasks.spawn(nodes::foreign_pods(
            context.clone(),
            slow.clone(),
            listed.clone(),
        ));
        if let Some(wakes) = nodes_to_taint {
            tasks.spawn(taint::run(context.clone(), wakes));
        }
        tasks.spawn(feed::flush(context.clone(), dirty.clone()));
        tasks.spawn(load::run(context.clone()));
        tasks.spawn(guard::run(context.clone()));
        tasks.spawn(runs::run(context.clone()));
        tasks.spawn(leader::terms(context.clone(), terms));
        tokio::spawn(feed::sweep_orphans(context.clone()));

        let cells = feed::cells(&context, &slow, &listed);
        let cells = reconcile_all(
            cells,
            cell_triggers,
            reconcile::reconcile_cell,
            &context,
            &over,
        );
        tasks.spawn(cells);
        let desired = feed::desired(&context, &slow, &listed);
        let desired_templates = desired.0.clone();
        let reconcile = reconcile::reconcile_desired;
        let desired = reconcile_all(desired, desired_triggers, reconcile, &context, &over);
        tasks.spawn(desired);
        let work = feed::tasks(&context, &slow, &listed);
        let templates = Templates {
            desired: desired_templates,
            tasks: work.0.clone(),
        };
        tasks.spawn(pods::run(context.clone(), templates, wakes, listed.clone()));
        let work = reconcile_all(
            work,
            task_triggers,
            reconcile::reconcile_task,
            &context,
            &over,
        );
        tasks.spawn(work);

        let first = context.clone();
        tasks.spawn(async move {
            listed.all().await;
            tracing::info!("all kinds are listed: working");
            guard::refresh(&first);
            // Before anything is looked at. Who has to be elected begins a run with its term.
            if first.leading() {
                runs::begin(&first, runs::Trigger::Startup);
            }
            ready.send_replace(true);
            std::future::pending().await
        });
        tokio::select! {
            () = stop.cancelled() => {
                tracing::info!("stopping");
                context.callbacks.stop().await;
            }
            ended = tasks.join_next() => {
                // A lane that ended can't be started again from here; the process is.
                tracing::error!(?ended, "a part of the controller ended");
            }
            () = left.cancelled() => tracing::error!("the leader election ended"),
        }
        over.cancel();
        // It clears away behind itself.
        let _ended = tokio::time::timeout(WATCH_LEAVES, watched).await;
        tasks.shutdown().await;
        leave.cancel();
        left.cancelled().await;
    })
}

/// Follows the presence until `over`; `_watching` is dropped when all is done.
async fn watch_presence(
    watcher: Watcher,
    events: Option<mpsc::Sender<PresenceEvent>>,
    over: CancellationToken,
    _watching: oneshot::Sender<()>,
) {
    watcher.run(events, over).await;
}

/// Runs one reconciler for every object that changes, and for every object once per interval, until `over`.
fn reconcile_all<K, F>(
    (reader, stream): feed::Objects<K>,
    triggers: trigger::UnboundedReceiver<ObjectRef<K>>,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
    context: &Arc<Context>,
    over: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, reconcile::Error>> + Send + 'static,
{
    let on_error = |_, error: &reconcile::Error, _| {
        tracing::debug!(%error, "will be looked at again");
        Action::requeue(RETRY)
    };
    Controller::for_stream(stream, reader)
        .reconcile_on(triggers)
        .graceful_shutdown_on(over.clone().cancelled_owned())
        .run(reconcile, on_error, context.clone())
        .for_each(|_| std::future::ready(()))
}
