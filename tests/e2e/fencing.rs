//! Strict LRPs on real nodes: what runs on a node that can't renew its presence is dead before its replacement starts, also
//! when rep and kubelet are stopped; Suspect ones run on.
//!
//! An observer outside of the nodes looks at the machine's process table all the time: never are there two processes of one
//! slot of the Strict LRP.

use crate::{
    installed::{Installed, SOON},
    support::{Failure, eventually},
};
use diego_operator::rep::procfs;
use std::{
    collections::BTreeMap,
    fs, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const FENCED: [&str; 2] = [
    "--set=rep.fencing.enabled=true",
    // The API server keeps the presences, and shares two processors with three nodes.
    "--set=presence.ttlSeconds=15",
];

/// Stops or continues what keeps a node's presence and its Pods: the rep and the kubelet. Its fencer is left alone.
const SIGNAL: &str = r#"
for dir in /proc/[0-9]*; do
  case "$(tr '\0' ' ' <$dir/cmdline)" in "/diego rep "*) kill -$0 "${dir#/proc/}";; esac
  case "$(readlink $dir/exe)" in */kubelet) kill -$0 "${dir#/proc/}";; esac
done 2>/dev/null
true"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_instance_is_dead_before_it_is_replaced() -> Result<(), Failure> {
    let began = Instant::now();
    let told = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let site = Installed::start(3, &FENCED).await?;
    let fenced = "get cells -o jsonpath={.items[*].status.fenced}";
    site.until(fenced, SOON, |all| all == "true true true")
        .await?;
    told("installed, and all Cells are fenced");
    let strict = Observer::start("strict");
    let kept = Observer::start("kept");
    site.apply(&lrp("strict", "Strict", &strict)).await?;
    site.apply(&lrp("kept", "Suspect", &kept)).await?;
    let before = site.running("strict", 3, |_| true).await?;
    site.running("kept", 3, |_| true).await?;
    told("three of each run");

    // Its cable is pulled; better not the leader's, which would take longer.
    let (_, leads) = site.leader().await?;
    let cell = before.iter().map(|slot| &slot.cell);
    let cut = cell.clone().find(|cell| **cell != leads);
    let cut = cut.ok_or("all instances are with the leader")?.clone();
    let lost = Lost::on(&site, &cut).await?;
    site.node(&cut)?.cut().await?;
    let after = site.running("strict", 3, |slot| slot.cell != cut).await?;
    told("replaced");
    lost.is_fenced(&strict, &kept)?;
    for (old, new) in before.iter().zip(&after) {
        let stayed = old.cell != cut;
        assert_eq!(stayed, old.guid == new.guid, "{old:?} became {new:?}");
    }
    site.node(&cut)?.heal().await?;
    site.cells_ready(3).await?;
    assert_eq!(site.running("strict", 3, |_| true).await?, after);
    site.running("kept", 3, |_| true).await?;
    told("healed");

    // Rep and kubelet are stopped, and the cable is whole.
    let hung = &after.first().ok_or("no instance")?.cell;
    let lost = Lost::on(&site, hung).await?;
    let node = site.node(hung)?;
    let signal = async |signal: &str| node.exec(&["/bin/sh", "-c", SIGNAL, signal]).await;
    signal("STOP").await?;
    site.running("strict", 3, |slot| slot.cell != *hung).await?;
    told("replaced");
    lost.is_fenced(&strict, &kept)?;
    signal("CONT").await?;
    site.cells_ready(3).await?;
    site.running("strict", 3, |_| true).await?;
    site.running("kept", 3, |_| true).await?;
    eventually("one process for each slot", SOON, || async {
        let one_each = |observer: &Observer| observer.alive().len() == 3;
        (one_each(&strict) && one_each(&kept)).then_some(())
    })
    .await?;
    told("it goes on");
    strict.saw_none_twice()
}

/// An LRP whose processes the observer knows.
fn lrp(name: &str, policy: &str, observer: &Observer) -> String {
    let (key, value) = observer.mark.split_once('=').unwrap_or_default();
    format!(
        "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {{name: {name}}}
spec:
  instances: 3
  missingCellPolicy: {policy}
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test-app:dev
        env:
        - {{name: {key}, value: {value}}}
        - name: SLOT
          valueFrom: {{fieldRef: {{fieldPath: \"metadata.labels['diego.cloudfoundry.org/index']\"}}}}
        - name: POD
          valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
"
    )
}

/// The Pods that run on a node when it is lost.
struct Lost {
    strict: Vec<String>,
    kept: Vec<String>,
}

impl Lost {
    async fn on(site: &Installed, cell: &str) -> Result<Self, Failure> {
        let mut on = Vec::new();
        for lrp in ["strict", "kept"] {
            let pods = site
                .pods(&format!("{}={lrp}", crate::look::DESIRED))
                .await?;
            let there = pods.into_iter().filter(|pod| pod.node == cell);
            on.push(there.map(|pod| pod.name).collect::<Vec<_>>());
        }
        let (Some(kept), Some(strict)) = (on.pop(), on.pop()) else {
            return Err("two LRPs have two lists".into());
        };
        assert!(
            !strict.is_empty() && !kept.is_empty(),
            "{strict:?} {kept:?}"
        );
        Ok(Self { strict, kept })
    }

    fn is_fenced(&self, strict: &Observer, kept: &Observer) -> Result<(), Failure> {
        let alive = strict.alive();
        for pod in &self.strict {
            assert!(!alive.contains(pod), "{pod} of the Strict LRP runs on");
        }
        let alive = kept.alive();
        for pod in &self.kept {
            assert!(alive.contains(pod), "{pod} of the Suspect LRP was stopped");
        }
        strict.saw_none_twice()
    }
}

/// Looks at the process table of the machine all the time for the processes with one mark.
struct Observer {
    mark: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    looks: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    /// Looks that saw one slot in two Pods.
    twice: Vec<String>,
}

impl Observer {
    fn start(name: &str) -> Self {
        let mark = format!("OBSERVED={name}-{}", process::id());
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let looks = {
            let (mark, seen, stop) = (mark.clone(), seen.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let alive = look(&mark);
                    if let Ok(mut seen) = seen.lock() {
                        seen.note(&alive);
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            })
        };
        Self {
            mark,
            seen,
            stop,
            looks: Some(looks),
        }
    }

    /// The Pods that have a process, by a look that begins now or later.
    fn alive(&self) -> Vec<String> {
        look(&self.mark).into_keys().collect()
    }

    fn saw_none_twice(&self) -> Result<(), Failure> {
        let seen = self.seen.lock().map_err(|_| "the observer failed")?;
        assert!(seen.looks > 0);
        match &seen.twice[..] {
            [] => Ok(()),
            twice => Err(format!("two instances at once: {twice:?}").into()),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(looks) = self.looks.take() {
            let _ = looks.join();
        }
    }
}

impl Seen {
    fn note(&mut self, alive: &BTreeMap<String, String>) {
        self.looks += 1;
        let mut slots: BTreeMap<&String, &String> = BTreeMap::new();
        for (pod, slot) in alive {
            if let Some(other) = slots.insert(slot, pod) {
                self.twice.push(format!("slot {slot} in {other} and {pod}"));
            }
        }
    }
}

/// The Pods that have a process with this mark, and their slots.
fn look(mark: &str) -> BTreeMap<String, String> {
    let pids = procfs::with_environment(mark);
    pids.into_iter().filter_map(pod_of).collect()
}

/// The Pod of a process and its slot, as its environment says. `None` when it has just ended.
fn pod_of(pid: i32) -> Option<(String, String)> {
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        let mut variables = environ.split('\0').filter_map(|one| one.split_once('='));
        variables
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    Some((value("POD")?, value("SLOT")?))
}
