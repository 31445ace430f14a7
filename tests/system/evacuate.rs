//! `spec.evacuate`: a Cell is emptied, gives its presence back while its rep lives on, and works again when it is
//! taken back.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState, CellStatus, TaskState};
use futures::StreamExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Failure, eventually, http, objects, site::START, site::Site};

/// Every stored state of the objects of one kind, from a watch: nothing between two looks is missed.
struct Record<K> {
    seen: Arc<Mutex<Vec<K>>>,
    watching: JoinHandle<()>,
}

impl<K> Record<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    fn start(api: Api<K>) -> Record<K> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let watching = tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).boxed();
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
                    into.lock().unwrap().push(object);
                }
            }
        });
        Record { seen, watching }
    }

    fn seen(&self) -> Vec<K> {
        self.seen.lock().unwrap().clone()
    }
}

impl<K> Drop for Record<K> {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The states that a Cell went through.
fn states(record: &Record<Cell>, name: &str) -> Vec<CellState> {
    let mut states: Vec<CellState> = record
        .seen()
        .iter()
        .filter(|cell| cell.name_any() == name)
        .filter_map(|cell| cell.status.as_ref()?.state)
        .collect();
    states.dedup();
    states
}

async fn ask(site: &Site, cell: &str, evacuate: bool) -> Result<(), Failure> {
    let patch = Patch::Merge(json!({ "spec": { "evacuate": evacuate } }));
    let params = PatchParams::default();
    site.cells().patch(cell, &params, &patch).await?;
    Ok(())
}

async fn status(site: &Site, cell: &str) -> Result<CellStatus, Failure> {
    Ok(site.cells().get(cell).await?.status.unwrap_or_default())
}

/// A script that ends when the file is there.
fn until(file: &Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.1; done", file.display())
}

async fn task_is(site: &Site, name: &str, state: TaskState) -> Result<(), Failure> {
    eventually(&format!("{name} is {state:?}"), START, || async {
        let task = site.tasks().get(name).await.ok()?;
        (task.status?.state == state).then_some(())
    })
    .await
}

async fn no_loss(site: &Site) -> Result<(), Failure> {
    for source in ["watch", "resync"] {
        let series = format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
        assert_eq!(site.metric(&series).await?, 0.0, "{series}");
    }
    Ok(())
}

/// Whether one of the places at which a record says that the instance is to be reached answers.
async fn answers(lrp: &ActualLRP) -> bool {
    let status = lrp.status.clone().unwrap_or_default();
    let ordinary = (status.state == ActualLRPState::Running)
        .then_some((status.address, status.ports))
        .into_iter();
    let places = ordinary.chain(status.evacuating.map(|old| (old.address, old.ports)));
    for (address, ports) in places {
        if let (Some(address), Some(port)) = (address, ports.first()) {
            let address = format!("{address}:{}", port.host_port);
            let answer = http::get(&address, "/", Duration::from_secs(5)).await;
            if answer.is_some_and(|(status, _)| status == 200) {
                return true;
            }
        }
    }
    false
}

/// Asks every instance over and over. What a record said may be over when it is asked: then the record is read
/// again, and what it says now must answer.
fn ask_all_the_time(api: Api<ActualLRP>) -> JoinHandle<String> {
    tokio::spawn(async move {
        loop {
            let list = api.list(&ListParams::default()).await;
            'instances: for mut lrp in list.map(|list| list.items).unwrap_or_default() {
                for _ in 0..3 {
                    if answers(&lrp).await {
                        continue 'instances;
                    }
                    if let Ok(read) = api.get(&lrp.name_any()).await {
                        lrp = read;
                    }
                }
                return format!("nothing answers for {}: {:?}", lrp.name_any(), lrp.status);
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_empties_a_cell_start_before_stop_and_takes_it_back() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    let (cells, lrps) = (Record::start(site.cells()), Record::start(site.actual()));
    let go = site.dir().join("go");
    site.run_task(&objects::task("long", &until(&go))).await?;
    task_is(&site, "long", TaskState::Running).await?;
    let container = json!({
        "name": "main",
        "command": ["sh", "-c", "exec python3 -m http.server \"$PORT\" --bind 127.0.0.1"],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "readinessProbe": { "tcpSocket": { "port": 8080 } },
    });
    let web = objects::lrp("web", 3, json!({ "containers": [container] }));
    site.desire(&web).await?;
    site.running("web", 3, |cell| cell == "b").await?;
    site.start_rep("a", "z1", &[]).await?;
    let before = status(&site, "b").await?;
    let asking = ask_all_the_time(site.actual());
    let already = lrps.seen().len();

    ask(&site, "b", true).await?;
    site.running("web", 3, |cell| cell == "a").await?;
    assert_eq!(status(&site, "b").await?.state, Some(CellState::Evacuating));
    task_is(&site, "long", TaskState::Running).await?;
    std::fs::write(&go, "")?;
    task_is(&site, "long", TaskState::Completed).await?;
    let task = site.tasks().get("long").await?.status.unwrap_or_default();
    assert_eq!(
        (task.failed.unwrap_or(false), task.failure_reason),
        (false, None)
    );
    site.cell_state("b", CellState::Evacuated).await?;
    assert!(!asking.is_finished(), "{}", asking.await?);
    asking.abort();
    for lrp in &lrps.seen()[already..] {
        let status = lrp.status.clone().unwrap_or_default();
        assert!(
            status.state == ActualLRPState::Running || status.evacuating.is_some(),
            "start before stop: {status:?}"
        );
        assert_eq!(status.crash_count.unwrap_or(0), 0, "no crash");
    }
    let of_b = [
        CellState::Present,
        CellState::Evacuating,
        CellState::Evacuated,
    ];
    assert_eq!(states(&cells, "b"), of_b);
    no_loss(&site).await?;

    // The rep lives on and waits, without a presence and without work.
    let probes = format!("127.0.0.1:{}", site.rep("b").health_port);
    eventually("the rep is alive, not ready", START, || async {
        let live = http::get(&probes, "/livez", Duration::from_secs(1)).await?;
        let ready = http::get(&probes, "/readyz", Duration::from_secs(1)).await?;
        ((live.0, ready.0) == (200, 503)).then_some(())
    })
    .await?;
    site.desire(&objects::sleepers("api", 2)).await?;
    site.running("api", 2, |cell| cell == "a").await?;

    ask(&site, "b", false).await?;
    site.cell_state("b", CellState::Present).await?;
    let after = status(&site, "b").await?;
    assert_ne!(after.incarnation, before.incarnation, "a new life");
    assert!(after.epoch > before.epoch);
    site.desire(&objects::sleepers("more", 2)).await?;
    let more = site.running("more", 2, |_| true).await?;
    let on_b = |lrp: &ActualLRP| lrp.status.as_ref().unwrap().cell_name.as_deref() == Some("b");
    assert!(more.iter().any(on_b), "it takes work again");
    assert_eq!(states(&cells, "b").last(), Some(&CellState::Present));
    assert!(!states(&cells, "b").contains(&CellState::Missing));
    no_loss(&site).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_leave_in_time_is_stopped_with_its_own_reason() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("b", "z2", &["--evacuation-timeout-seconds", "1"])
        .await?;
    let cells = Record::start(site.cells());
    site.run_task(&objects::task("endless", "sleep 100000"))
        .await?;
    task_is(&site, "endless", TaskState::Running).await?;
    // There is no other Cell for it.
    site.desire(&objects::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;
    ask(&site, "b", true).await?;
    site.cell_state("b", CellState::Evacuated).await?;
    let task = site
        .tasks()
        .get("endless")
        .await?
        .status
        .unwrap_or_default();
    assert_eq!(
        (task.state, task.failed, task.failure_reason.as_deref()),
        (
            TaskState::Completed,
            Some(true),
            Some("timed out during cell evacuation")
        )
    );
    let of_b = [
        CellState::Present,
        CellState::Evacuating,
        CellState::Evacuated,
    ];
    assert_eq!(states(&cells, "b"), of_b);
    no_loss(&site).await?;
    // What had to be stopped runs here again as soon as it may.
    ask(&site, "b", false).await?;
    site.running("web", 1, |cell| cell == "b").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evacuation_taken_back_midway_goes_on_to_its_end() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    let cells = Record::start(site.cells());
    let go = site.dir().join("go");
    site.run_task(&objects::task("long", &until(&go))).await?;
    task_is(&site, "long", TaskState::Running).await?;
    ask(&site, "b", true).await?;
    site.cell_state("b", CellState::Evacuating).await?;
    ask(&site, "b", false).await?;
    // New work waits until the Cell has begun anew.
    site.desire(&objects::sleepers("web", 1)).await?;
    eventually("web waits", START, || async {
        let lrp = site.actual().get("web-0").await.ok()?;
        lrp.status?.placement_error
    })
    .await?;
    assert_eq!(status(&site, "b").await?.state, Some(CellState::Evacuating));
    std::fs::write(&go, "")?;
    site.running("web", 1, |cell| cell == "b").await?;
    let task = site.tasks().get("long").await?.status.unwrap_or_default();
    assert_eq!(
        (task.state, task.failed.unwrap_or(false)),
        (TaskState::Completed, false)
    );
    let states = states(&cells, "b");
    assert!(!states.contains(&CellState::Missing), "{states:?}");
    assert_eq!(states.last(), Some(&CellState::Present));
    no_loss(&site).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_does_not_register_while_its_cell_is_to_be_evacuated() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("b", "z1", &[]).await?;
    ask(&site, "b", true).await?;
    site.cell_state("b", CellState::Evacuated).await?;
    // SIGTERM ends a rep that waits at once.
    let ended = site.stop_rep("b").await?;
    assert!(ended.success(), "{ended}");
    let cells = Record::start(site.cells());
    let rep = site.start_extra_rep("b", "again", &[])?;
    eventually("it says why it waits and what to do", START, || async {
        let log = std::fs::read_to_string(rep.log()).ok()?;
        (log.contains("spec.evacuate of this Cell is true") && log.contains("kubectl patch cell b"))
            .then_some(())
    })
    .await?;
    // An operator's other wish is left alone, too.
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    site.cells()
        .patch("b", &PatchParams::default(), &cordon)
        .await?;
    ask(&site, "b", false).await?;
    site.cell_state("b", CellState::Present).await?;
    let early = |cell: &Cell| {
        let state = cell.status.as_ref().and_then(|status| status.state);
        cell.spec.evacuate == Some(true) && state != Some(CellState::Evacuated)
    };
    assert!(!cells.seen().iter().any(early), "{:?}", cells.seen());
    let spec = site.cells().get("b").await?.spec;
    assert_eq!(
        (spec.evacuate, spec.unschedulable),
        (Some(false), Some(true))
    );
    rep.terminate();
    assert!(tokio::time::timeout(START, rep.wait()).await?.success());
    no_loss(&site).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_is_deleted_while_its_rep_waits_is_made_anew() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("b", "z1", &[]).await?;
    ask(&site, "b", true).await?;
    site.cell_state("b", CellState::Evacuated).await?;
    let old = site.cells().get("b").await?.uid();
    site.cells().delete("b", &DeleteParams::default()).await?;
    site.cell_state("b", CellState::Present).await?;
    assert_ne!(site.cells().get("b").await?.uid(), old);
    site.desire(&objects::sleepers("web", 1)).await?;
    site.running("web", 1, |cell| cell == "b").await?;
    no_loss(&site).await
}
