//! `missingCellPolicy: Strict`: at no moment do two processes of one index run, whatever becomes of their rep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRPState, CellState, DesiredLRP, MissingCellPolicy};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{
    Failure, eventually, http, objects, proxy::Proxy, site::START, site::Site, tree,
};

/// In seconds. Fenced 2.07 s after the last renewal.
const TTL: Duration = Duration::from_secs(3);
const FLAGS: [&str; 2] = ["--presence-ttl-seconds", "3"];

/// By index and guid, the seconds since the machine's start in which a run was first and last seen alive.
type Lives = BTreeMap<(String, String), (f64, f64)>;

/// Instances that write down that they live, on the clock of the machine.
struct Pulse(PathBuf);

impl Pulse {
    fn new(dir: &Path) -> Result<Pulse, Failure> {
        let dir = dir.join("pulse");
        std::fs::create_dir(&dir)?;
        Ok(Pulse(dir))
    }

    fn lrp(&self, instances: i32, policy: MissingCellPolicy) -> DesiredLRP {
        self.lrp_after("", instances, policy)
    }

    /// The same, after a line of its script.
    fn lrp_after(&self, line: &str, instances: i32, policy: MissingCellPolicy) -> DesiredLRP {
        let log = format!("{}/$INSTANCE_INDEX.$INSTANCE_GUID", self.0.display());
        let beat = format!("beat() {{ read up rest < /proc/uptime; echo $up >> {log}; }}");
        let script = format!("{beat}; {line} while :; do beat; sleep 0.05; done");
        let container = json!({ "name": "main", "command": ["sh", "-c", script] });
        let mut lrp = objects::lrp("web", instances, json!({ "containers": [container] }));
        lrp.spec.missing_cell_policy = policy;
        lrp
    }

    /// What they wrote so far.
    fn lives(&self) -> Result<Lives, Failure> {
        let mut lives = BTreeMap::new();
        for file in std::fs::read_dir(&self.0)? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (index, guid) = name.split_once('.').ok_or("index and guid")?;
            let text = std::fs::read_to_string(&path)?;
            let mut beats = text.lines().filter_map(|line| line.parse::<f64>().ok());
            if let Some(first) = beats.next() {
                let last = beats.next_back().unwrap_or(first);
                lives.insert((index.to_owned(), guid.to_owned()), (first, last));
            }
        }
        Ok(lives)
    }

    /// S6: no two runs of one index overlap. Returns how many runs there were.
    fn check(&self) -> Result<usize, Failure> {
        let lives = self.lives()?;
        for ((index, guid), (first, last)) in &lives {
            let others = lives.iter().filter(|((i, g), _)| i == index && g != guid);
            for ((_, other), (from, to)) in others {
                if first <= to && from <= last {
                    return Err(format!(
                        "S6: {index} ran twice: {guid} from {first} to {last}, {other} from {from} to {to}"
                    )
                    .into());
                }
            }
        }
        Ok(lives.len())
    }

    /// Looks all the time, for so long.
    async fn watch(&self, span: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < span {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn guids(instances: &[diego_operator::api::ActualLRP]) -> Vec<Option<String>> {
    let status = instances.iter().map(|lrp| lrp.status.clone());
    status.map(|status| status?.instance_guid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_rep_ran_is_dead_before_its_replacement_runs() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &FLAGS).await?;
    let pulse = Pulse::new(site.dir())?;
    site.desire(&pulse.lrp(2, MissingCellPolicy::Strict))
        .await?;
    site.running("web", 2, |cell| cell == "a").await?;
    site.start_rep("b", "z2", &FLAGS).await?;
    // While the presence is renewed the fence does nothing.
    pulse.watch(TTL * 2).await?;
    assert_eq!(pulse.check()?, 2);

    let rep = site.rep("a").process.pid();
    site.rep("a").process.pause();
    let stopped = Instant::now();
    eventually("all that it ran is dead", TTL, || async move {
        let below = tree::descendants(rep);
        // The supervisors have ended, and wait for the rep to collect them.
        below.is_empty().then_some(())
    })
    .await?;
    let moved = site.running("web", 2, |cell| cell == "b").await?;
    pulse
        .watch((TTL * 4).saturating_sub(stopped.elapsed()))
        .await?;
    site.rep("a").process.resume();
    site.cell_state("a", CellState::Present).await?;
    pulse.watch(TTL * 2).await?;
    let after = site.running("web", 2, |cell| cell == "b").await?;
    assert_eq!(guids(&after), guids(&moved), "left where they are");
    assert_eq!(pulse.check()?, 4, "each ran once on either Cell");
    let crashes = after
        .iter()
        .filter_map(|lrp| lrp.status.as_ref()?.crash_count);
    assert_eq!(crashes.sum::<i32>(), 0, "none of them crashed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rep_ran_that_the_presence_store_does_not_answer_is_fenced() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    let target = site.etcd.endpoints()[0].replace("http://", "");
    let proxy = Proxy::start(target).await?;
    let by_way_of = format!("http://{}", proxy.address());
    site.spawn_rep_at(&by_way_of, "a", "z1", &FLAGS).await?;
    site.cell_state("a", CellState::Present).await?;
    let pulse = Pulse::new(site.dir())?;
    site.desire(&pulse.lrp(1, MissingCellPolicy::Strict))
        .await?;
    let before = site.running("web", 1, |cell| cell == "a").await?;

    // With nowhere to go the record says why it waits.
    proxy.cut();
    let status = eventually("the record says that it was fenced", START, || async {
        let status = site.instances("web").await.ok()?.pop()?.status?;
        let told =
            status.placement_error.as_deref() == Some("fenced: the presence could not be renewed");
        told.then_some(status)
    })
    .await?;
    assert_eq!(
        (status.state, status.crash_count, status.suspect),
        (ActualLRPState::Unclaimed, None, None),
        "that is no crash of the user's"
    );
    site.cell_state("a", CellState::Missing).await?;
    site.start_rep("b", "z2", &FLAGS).await?;
    let moved = site.running("web", 1, |cell| cell == "b").await?;
    assert_ne!(guids(&before), guids(&moved));
    proxy.mend();
    site.cell_state("a", CellState::Present).await?;
    pulse.watch(TTL).await?;
    let after = site.running("web", 1, |cell| cell == "b").await?;
    assert_eq!(guids(&after), guids(&moved));
    let address = format!("127.0.0.1:{}", site.rep("a").metrics_port);
    let page = http::get(&address, "/metrics", START)
        .await
        .ok_or("no metrics")?
        .1;
    let series = "diego_rep_instances_stopped_total{reason=\"Fenced\"}";
    assert_eq!(http::metric(&page, series), Some(1.0));
    assert_eq!(pulse.check()?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_must_not_run_twice_begins_without_a_renewal() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    let target = site.etcd.endpoints()[0].replace("http://", "");
    let proxy = Proxy::start(target).await?;
    let by_way_of = format!("http://{}", proxy.address());
    // Long enough to be asked for work before anybody notices, and short enough to wait for.
    let flags = ["--presence-ttl-seconds", "12"];
    site.spawn_rep_at(&by_way_of, "a", "z1", &flags).await?;
    site.cell_state("a", CellState::Present).await?;
    let pulse = Pulse::new(site.dir())?;
    site.desire(&pulse.lrp(1, MissingCellPolicy::Strict))
        .await?;
    site.running("web", 1, |cell| cell == "a").await?;
    proxy.cut();
    eventually("it was fenced", START, || async {
        let rep = site.rep("a").process.pid();
        tree::descendants(rep).is_empty().then_some(())
    })
    .await?;
    // Its Cell is still there for the controller, and the only one: it is asked to run it again.
    eventually(
        "it is placed there again, or the Cell is lost",
        START,
        || async {
            let status = site.instances("web").await.ok()?.pop()?.status?;
            let lost = site.cells().get("a").await.ok()?.status?.state == Some(CellState::Missing);
            (status.cell_name.is_some() || lost).then_some(())
        },
    )
    .await?;
    pulse.watch(Duration::from_secs(1)).await?;
    assert_eq!(pulse.check()?, 1, "nothing began");
    proxy.mend();
    site.running("web", 1, |cell| cell == "a").await?;
    assert_eq!(pulse.check()?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_run_twice_leaves_a_drained_cell_stop_before_start() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &FLAGS).await?;
    let pulse = Pulse::new(site.dir())?;
    // It takes its time to stop.
    let slowly = "trap 'for i in 1 2 3 4 5 6 7 8 9 10; do beat; sleep 0.1; done; exit 0' TERM;";
    let web = pulse.lrp_after(slowly, 2, MissingCellPolicy::Strict);
    site.desire(&web).await?;
    site.running("web", 2, |cell| cell == "a").await?;
    site.start_rep("b", "z2", &FLAGS).await?;
    let evacuate = Patch::Merge(json!({ "spec": { "evacuate": true } }));
    let params = PatchParams::default();
    site.cells().patch("a", &params, &evacuate).await?;
    site.running("web", 2, |cell| cell == "b").await?;
    site.cell_state("a", CellState::Evacuated).await?;
    pulse.watch(Duration::from_secs(1)).await?;
    assert_eq!(pulse.check()?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_nothing_is_fenced() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &FLAGS).await?;
    let pulse = Pulse::new(site.dir())?;
    site.desire(&pulse.lrp(2, MissingCellPolicy::Suspect))
        .await?;
    let before = site.running("web", 2, |cell| cell == "a").await?;
    let processes = tree::descendants(site.rep("a").process.pid());
    assert!(!processes.is_empty());
    site.rep("a").process.pause();
    site.cell_state("a", CellState::Missing).await?;
    pulse.watch(TTL).await?;
    assert_eq!(pulse.check()?, 2);
    site.rep("a").process.resume();
    site.cell_state("a", CellState::Present).await?;
    let after = site.running("web", 2, |cell| cell == "a").await?;
    assert_eq!(guids(&after), guids(&before), "the same runs");
    // Each supervisor, and its shell; the pauses of the shell come and go.
    let alive = processes.iter().filter(|pid| tree::is_alive(**pid)).count();
    assert!(alive >= 4, "{alive} of {} live", processes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_too_short_for_it_is_told_with_the_remedy() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    // The other store: etcd gives no TTL below 2 s.
    let leases = ["--presence", "kubernetes", "--namespace", "default"];
    site.start_controller(&leases).await?;
    let short = [&leases[..], &["--presence-ttl-seconds", "1"]].concat();
    site.start_rep("a", "z1", &short).await?;
    let pulse = Pulse::new(site.dir())?;
    site.desire(&pulse.lrp(1, MissingCellPolicy::Strict))
        .await?;
    let told = eventually("it is refused", START, || async {
        let status = site.instances("web").await.ok()?.pop()?.status?;
        let told = status
            .placement_error
            .filter(|told| told.contains("Strict"))?;
        (status.state == ActualLRPState::Unclaimed).then_some(told)
    })
    .await?;
    for part in ["1000 ms", "--presence-ttl-seconds", "2 or more"] {
        assert!(told.contains(part), "{told}");
    }
    let cells = site.cells();
    let fenced = async |name: &str| -> Result<Option<bool>, Failure> {
        let status = cells.get(name).await?.status;
        Ok(status.and_then(|status| status.fenced))
    };
    assert_eq!(fenced("a").await?, None);
    site.start_rep("b", "z2", &leases).await?;
    site.running("web", 1, |cell| cell == "b").await?;
    assert_eq!(fenced("b").await?, Some(true));
    assert_eq!(pulse.check()?, 1);
    Ok(())
}
