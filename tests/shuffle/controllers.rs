//! The controller itself, in this process, behind the shuffler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use diego_operator::client::{self, KubeArgs};
use diego_operator::config::{Cli, Program};
use diego_operator::controller;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::shuffler::Shuffler;
use crate::store::Store;
use crate::support::Failure;

/// A stop takes no longer.
pub const LATE: Duration = Duration::from_secs(5);

/// A controller.
pub struct Controller {
    stop: CancellationToken,
    ready: watch::Receiver<bool>,
    task: JoinHandle<()>,
    api: Api,
    store: Store,
}

impl Controller {
    /// Starts one; `who` is its name in the shuffler's log.
    pub async fn start(
        (client, etcd): (&Client, &str),
        shuffler: &Arc<Shuffler>,
        who: &str,
        dir: &Path,
        flags: &[String],
    ) -> Result<Controller, Failure> {
        let api = Api::start(client.clone(), Arc::clone(shuffler), who).await?;
        let store = Store::start(etcd, Arc::clone(shuffler), who).await?;
        let kubeconfig = dir.join(format!("shuffle-{who}.yaml"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
             clusters: [{{name: here, cluster: {{server: '{}'}}}}]\n\
             users: [{{name: here, user: {{}}}}]\n\
             contexts: [{{name: here, context: {{cluster: here, user: here}}}}]\n",
            api.url
        );
        std::fs::write(&kubeconfig, text)?;
        let words = ["diego", "controller", "--etcd-endpoints", &store.url];
        let words = words.into_iter().chain(flags.iter().map(String::as_str));
        let Program::Controller(args) = Cli::try_parse_from(words)?.program else {
            return Err("these are a controller's arguments".into());
        };
        let config = client::config(&KubeArgs {
            kubeconfig: Some(kubeconfig),
            context: None,
        })
        .await?;
        let stop = CancellationToken::new();
        let (is_ready, ready) = watch::channel(false);
        let over = stop.clone();
        let task = tokio::spawn(async move {
            // As a supervisor would: what is lost at the start is tried again.
            loop {
                let (registry, is_ready) = (&mut Registry::default(), is_ready.clone());
                match controller::run(&args, &config, registry, is_ready, over.clone()).await {
                    Ok(running) => return running.await,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Controller {
            stop,
            ready,
            task,
            api,
            store,
        })
    }

    /// Waits until it works.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let ready = self.ready.wait_for(|ready| *ready);
        tokio::time::timeout(crate::support::site::START, ready).await??;
        Ok(())
    }

    /// Whether it has ended, which nobody asked for.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// From now on, or not any more, it can't lead.
    pub fn cut_off(&self, cut_off: bool) {
        self.api.cut_off(cut_off);
    }

    /// It dies: nothing of it goes any further. What is returned is over when it is cleared away.
    pub fn kill(self) -> JoinHandle<()> {
        drop((self.api, self.store));
        self.stop.cancel();
        self.task
    }

    /// Stops it as a signal would.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // What is late dies.
        let _late = tokio::time::timeout(LATE, &mut self.task).await;
    }
}
