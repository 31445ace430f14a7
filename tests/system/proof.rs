//! Sooner than the TTL, where a rep's machine itself says that the rep and all that it ran are dead; and what must never be
//! taken for that.

use std::collections::BTreeSet;
use std::time::Duration;

use diego_operator::api::{CellState, MissingCellPolicy, TaskState};
use diego_operator::presence::PresencePhase;
use diego_operator::presence::etcd::{decode_value, key};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Failure, eventually, objects, site::START, site::Site, tree};

/// Longer than anything here waits: what happens before it is over has another cause.
const LONG: [&str; 2] = ["--presence-ttl-seconds", "600"];

/// A witness needs milliseconds. What must not happen is given this long.
const NEVER: Duration = Duration::from_secs(2);

async fn losses(site: &Site) -> Result<[f64; 4], Failure> {
    let mut counts = [0.0; 4];
    for (count, source) in counts.iter_mut().zip(["proof", "watch", "timer", "resync"]) {
        let series = format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
        *count = site.metric(&series).await?;
    }
    Ok(counts)
}

async fn source(site: &Site, cell: &str) -> Result<Option<String>, Failure> {
    let status = site.cells().get(cell).await?.status.unwrap_or_default();
    Ok(status.last_recovery.and_then(|last| last.source))
}

fn signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    Ok(kill(Pid::from_raw(pid.cast_signed()), signal)?)
}

fn witness(site: &Site, cell: &str) -> Result<u32, Failure> {
    let witness = tree::witness(site.rep(cell).process.pid());
    Ok(witness.ok_or_else(|| format!("{cell} has no witness"))?)
}

/// The phase in the Cell's key.
async fn phase(site: &Site, cell: &str) -> Result<Option<PresencePhase>, Failure> {
    let mut etcd = etcd_client::Client::connect(site.etcd.endpoints(), None).await?;
    let answer = etcd.get(key(cell), None).await?;
    let value = answer.kvs().first().and_then(|kv| decode_value(kv.value()));
    Ok(value.map(|value| value.phase))
}

async fn a_killed_rep(presence: &[&str]) -> Result<Site, Failure> {
    let mut site = Site::start().await?;
    let quiet = ["--convergence-interval-seconds", "3600"];
    site.start_controller(&[&quiet[..], presence].concat())
        .await?;
    for (cell, zone) in [("a", "z1"), ("b", "z2"), ("c", "z3")] {
        site.start_rep(cell, zone, &[&LONG[..], presence].concat())
            .await?;
    }
    site.desire(&objects::sleepers("web", 6)).await?;
    let mut strict = objects::sleepers("strict", 3);
    strict.spec.missing_cell_policy = MissingCellPolicy::Strict;
    site.desire(&strict).await?;
    site.running("web", 6, |_| true).await?;
    site.running("strict", 3, |_| true).await?;
    for n in 0..3 {
        let task = objects::task(&format!("long-{n}"), "sleep 100000");
        site.run_task(&task).await?;
    }
    let states = async |wanted: TaskState| {
        let tasks = site.tasks().list(&Default::default()).await.ok()?.items;
        let states = tasks
            .into_iter()
            .filter_map(|task| Some(task.status?.state));
        Some(states.filter(|state| *state == wanted).count())
    };
    eventually("every Task runs", START, || async {
        (states(TaskState::Running).await? == 3).then_some(())
    })
    .await?;

    // Two of three, in two zones: as losses they would be held back.
    for cell in ["b", "c"] {
        site.rep(cell).process.kill();
    }
    site.running("web", 6, |cell| cell == "a").await?;
    site.running("strict", 3, |cell| cell == "a").await?;
    eventually("the Tasks there have failed", START, || async {
        (states(TaskState::Completed).await? == 2).then_some(())
    })
    .await?;
    assert_eq!(losses(&site).await?, [2.0, 0.0, 0.0, 0.0]);
    for cell in ["b", "c"] {
        site.cell_state(cell, CellState::Missing).await?;
        assert_eq!(source(&site, cell).await?.as_deref(), Some("proof"));
    }
    assert_eq!(site.metric("diego_cell_losses_held").await?, 0.0);
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rep_is_lost_at_once_with_etcd() -> Result<(), Failure> {
    let mut site = a_killed_rep(&[]).await?;
    assert_eq!(phase(&site, "b").await?, None, "its lease is revoked");
    // It comes back at once: nobody holds its name any more.
    site.start_rep("b", "z2", &LONG).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rep_is_lost_at_once_with_leases() -> Result<(), Failure> {
    let presence = ["--presence", "kubernetes", "--namespace", "default"];
    let mut site = a_killed_rep(&presence).await?;
    let leases = Api::<Lease>::namespaced(site.client.clone(), "default");
    let lease = leases.get("cell-b").await?;
    let value = lease.metadata.annotations.unwrap_or_default();
    let value = value.values().find(|value| value.contains("\"dead\""));
    assert!(value.is_some(), "the Lease says so");
    site.start_rep("b", "z2", &[&LONG[..], &presence].concat())
        .await?;
    Ok(())
}

/// Answers as the store does, until it resets every connection and lets nobody connect any more: what the kernel of a
/// machine does whose process has died, a firewall can do as well.
struct Resetting {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Resetting {
    async fn start(target: String) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                // Closing it sends a reset.
                let _ = client.set_zero_linger();
                let target = target.clone();
                open.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { address, task })
    }

    fn reset(&self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_silence_no_network_and_no_end_of_a_machine_is_a_proof() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    // One after the other, but within seconds: the guard has no part in it.
    site.start_controller(&["--mass-loss-threshold-percent", "100"])
        .await?;
    let short = ["--presence-ttl-seconds", "2"];
    for cell in ["stopped", "machine", "unwitnessed", "off", "group"] {
        let flags = match cell {
            "off" => &["--presence-ttl-seconds", "2", "--death-witness", "false"][..],
            _ => &short,
        };
        site.start_rep(cell, "z1", flags).await?;
    }
    let endpoint = site.etcd.endpoints().remove(0);
    let proxy = Resetting::start(endpoint.trim_start_matches("http://").to_owned()).await?;
    site.spawn_rep_at(&proxy.address, "reset", "z1", &short)
        .await?;
    site.cell_state("reset", CellState::Present).await?;
    let rep = site.rep("off").process.pid();
    assert_eq!(tree::witness(rep), None, "--death-witness=false");

    proxy.reset();
    site.rep("stopped").process.pause();
    let machine = site.rep("machine").process.pid();
    tree::kill_tree(machine);
    // First, and seen to be gone: then there is nobody to tell.
    let first = witness(&site, "unwitnessed")?;
    tree::kill_one(first);
    eventually("the witness is gone", START, || async move {
        (!tree::is_alive(first)).then_some(())
    })
    .await?;
    for cell in ["unwitnessed", "off"] {
        site.rep(cell).process.kill();
    }
    // A witness that is stopped is as good as none.
    let stopped = witness(&site, "group")?;
    signal(stopped, Signal::SIGSTOP)?;
    site.rep("group").process.kill();
    let all = ["stopped", "machine", "unwitnessed", "off", "group", "reset"];
    for cell in all {
        site.cell_state(cell, CellState::Missing).await?;
        assert_ne!(
            source(&site, cell).await?.as_deref(),
            Some("proof"),
            "{cell}"
        );
    }
    let [proof, others @ ..] = losses(&site).await?;
    assert_eq!((proof, others.iter().sum::<f64>()), (0.0, 6.0));
    // Late, it has nothing to tell of, and ends.
    signal(stopped, Signal::SIGCONT)?;
    eventually("the late witness has ended", START, || async move {
        (!tree::is_alive(stopped)).then_some(())
    })
    .await?;
    assert_eq!(losses(&site).await?[0], 0.0);
    Ok(())
}

/// The supervisors below a rep.
fn supervisors(site: &Site, cell: &str) -> Vec<u32> {
    let mut found = tree::descendants(site.rep(cell).process.pid());
    found.retain(|pid| tree::is_diego(*pid, "supervise"));
    found
}

/// Nothing was said of the Cell's death for a while.
async fn nothing_told(site: &Site, cell: &str) -> Result<(), Failure> {
    tokio::time::sleep(NEVER).await;
    assert_eq!(phase(site, cell).await?, Some(PresencePhase::Held));
    site.cell_state(cell, CellState::Present).await?;
    assert_eq!(losses(site).await?, [0.0; 4]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_proof_while_anything_of_its_work_is_left() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &LONG).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    site.running("web", 2, |_| true).await?;
    let all = tree::descendants(site.rep("a").process.pid());
    let [first, second] = supervisors(&site, "a")[..] else {
        return Err(format!("not two supervisors: {all:?}").into());
    };
    let orphans = tree::descendants(second);
    // As a supervisor that does not come to its end. (One that is stopped goes on when its rep dies: the kernel sees to it.)
    let hold = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{first}/fd/1"))?;
    // And one that never kills what it ran.
    site.rep("a").process.pause();
    tree::kill_one(second);
    site.rep("a").process.kill();
    site.rep("a").process.wait().await;
    eventually("the supervisors are gone", START, || async move {
        (!tree::is_alive(first) && !tree::is_alive(second)).then_some(())
    })
    .await?;
    let said = || std::fs::read_to_string(site.rep("a").process.log());
    nothing_told(&site, "a").await?;
    assert!(!said()?.contains("the rep is dead"), "{}", said()?);
    drop(hold);
    eventually("it sees what is left", START, || async {
        said().ok()?.contains("not all of its work").then_some(())
    })
    .await?;
    nothing_told(&site, "a").await?;
    assert!(orphans.iter().all(|pid| tree::is_alive(*pid)));
    orphans.into_iter().for_each(tree::kill_one);
    site.cell_state("a", CellState::Missing).await?;
    assert_eq!(losses(&site).await?, [1.0, 0.0, 0.0, 0.0]);
    Ok(())
}

fn open_files(pid: u32) -> BTreeSet<String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = files
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rep_and_supervisors_hold_the_pipe_and_leaving_is_no_death() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &LONG).await?;
    let probe =
        serde_json::json!({ "exec": { "command": ["sleep", "1000"] }, "timeoutSeconds": 1000 });
    let container = serde_json::json!({
        "name": "main", "command": ["sh", "-c", "sleep 100000 & sleep 100000"], "startupProbe": probe,
    });
    let web = objects::lrp("web", 1, serde_json::json!({ "containers": [container] }));
    site.desire(&web).await?;
    let rep = site.rep("a").process.pid();
    let witness = witness(&site, "a")?;
    let pipe = std::fs::read_link(format!("/proc/{witness}/fd/0"))?;
    let pipe = pipe.display().to_string();
    // The instance's own, and that of its probe.
    let all = eventually("instance and probe run", START, || async {
        let all = tree::descendants(rep);
        let work = all.iter().filter(|pid| !tree::is_diego(**pid, "supervise"));
        (supervisors(&site, "a").len() == 2 && work.count() == 4).then_some(all)
    })
    .await?;
    assert!(open_files(rep).contains(&pipe));
    for pid in all {
        let holds = open_files(pid).contains(&pipe);
        assert_eq!(holds, tree::is_diego(pid, "supervise"), "{pid}");
    }
    let session = nix::unistd::getsid(Some(Pid::from_raw(witness.cast_signed())))?;
    assert_eq!(session.as_raw(), witness.cast_signed(), "one of its own");

    site.start_rep("b", "z2", &LONG).await?;
    site.desired().delete("web", &Default::default()).await?;
    assert!(site.stop_rep("a").await?.success());
    site.cell_state("a", CellState::Evacuated).await?;
    eventually("the witness has ended", START, || async move {
        (!tree::is_alive(witness)).then_some(())
    })
    .await?;
    assert_eq!(losses(&site).await?, [0.0; 4]);
    Ok(())
}
