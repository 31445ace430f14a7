//! Two controllers at once, which are told apart by the compare-and-swap alone.

use std::sync::atomic::Ordering;

use diego_operator::api::Task;
use local_cluster::ServerProcess;

use super::receiver::{HOLD, Receiver};
use super::{PATIENT, deleted, settled, site_with_one_cell, task};
use crate::support::{Failure, eventually, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_tell_each_outcome_once() -> Result<(), Failure> {
    // One at a time, so that most wait, and find that the other controller has told it meanwhile.
    let flags = [&PATIENT[..], &["--callback-concurrency", "1"]].concat();
    let mut site = site_with_one_cell(&flags).await?;
    // Nobody would do this: only the compare-and-swap is left to tell them apart.
    let second = extra_controller(&site, &flags, &[]).await?;
    let receiver = Receiver::start(HOLD).await?;
    let names: Vec<String> = (0..30).map(|n| format!("t{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let ttl = (n % 2 == 0).then_some(600);
        site.run_task(&task(name, "exit 0", &receiver, ttl)).await?;
    }
    eventually("every Task has ended", START, || async {
        let tasks = site.tasks().list(&Default::default()).await.ok()?.items;
        let ended = |task: &Task| {
            let status = task.status.as_ref();
            status.is_some_and(|status| status.first_completed_time.is_some())
        };
        tasks.iter().all(ended).then_some(())
    })
    .await?;
    receiver.status.store(200, Ordering::Relaxed);
    for (n, name) in names.iter().enumerate() {
        if n % 2 == 0 {
            settled(&site, name).await?;
        } else {
            deleted(&site, name).await?;
        }
    }
    // What one of them has done wrong it does before it comes to this one.
    site.run_task(&task("last", "exit 0", &receiver, None))
        .await?;
    deleted(&site, "last").await?;
    let times = |name: &str| receiver.about(name).len();
    let twice: Vec<_> = names.iter().filter(|name| times(name) != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    second.kill();
    second.wait().await;
    site.kill_controller().await;
    Ok(())
}

/// Another controller beside the site's own, if it has one, with more environment.
pub async fn extra_controller(
    site: &Site,
    flags: &[&str],
    envs: &[(String, String)],
) -> Result<ServerProcess, Failure> {
    let kubeconfig = site.cluster.kubeconfig().display().to_string();
    let envs = [&[("KUBECONFIG".to_owned(), kubeconfig)], envs].concat();
    let endpoints = site.etcd.endpoints().join(",");
    let ports = [
        "--metrics-addr",
        "127.0.0.1:0",
        "--health-addr",
        "127.0.0.1:0",
    ];
    let own = ["controller", "--etcd-endpoints", &endpoints];
    let args = [&own[..], &ports, flags].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let log = site
        .dir()
        .join(format!("extra-{}.log", uuid::Uuid::new_v4()));
    let process = ServerProcess::start("extra", &Site::program()?, &args, &envs, &log)?;
    eventually("the extra controller works", START, || async {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("all kinds are listed").then_some(())
    })
    .await?;
    Ok(process)
}
