//! What real kubelets refuse, evict and preempt: instances run elsewhere and have not crashed, and Tasks have failed.
//!
//! One cluster goes through all of it. Two kubectls beside the test write down what every Pod and every slot said meanwhile.

mod evicted;
mod hung;
mod preempted;
mod refused;

use crate::{
    installed::{Installed, NAMESPACE, SOON},
    look::{items, text},
    stream::Stream,
    support::{Failure, eventually, http},
};
use local_cluster::NodesOptions;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Within this the Pod that was taken away is followed by another: a second, and what a busy machine adds. The next pass of
/// convergence comes after up to thirty.
const PROMPTLY: Duration = Duration::from_secs(12);
/// A sysctl that is not safe by the kubelet's list: it refuses Pods that set it, but where its configuration allows it.
const SYSCTL: &str = "net.core.somaxconn";
/// The node whose kubelet allows it.
const ALLOWING: &str = "node-3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kubelet_takes_away_runs_elsewhere_and_has_not_crashed() -> Result<(), Failure> {
    let began = Instant::now();
    let progress = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let site = Installed::on(nodes(), &[]).await?;
    progress("installed");
    let told = Told::start(&site)?;
    let refusals = Instant::now();
    refused::apply(&site).await?;
    evicted::apply(&site).await?;
    refused::instances_end_on_the_node_that_takes_them(&site, &told).await?;
    progress("refused instances run elsewhere");
    refused::a_task_has_failed_and_ran_nowhere(&site, &told).await?;
    progress("a refused Task has failed");
    evicted::an_instance_runs_elsewhere(&site, &told).await?;
    progress("an evicted instance runs elsewhere");
    evicted::a_task_has_failed(&site, &told).await?;
    progress("an evicted Task has failed");
    preempted::an_instance_makes_room(&site, &told).await?;
    progress("a preempted instance runs elsewhere");
    refused::what_nobody_takes_is_tried_ever_more_rarely(&site, &told, refusals).await?;
    progress("what nobody takes was not tried in a hot loop");
    the_metrics_agree(&site, &told).await
}

/// Three nodes that look for Pods to evict as often as they can, the last of which allows the sysctl.
fn nodes() -> NodesOptions {
    let mut options = NodesOptions::count(3);
    for node in &mut options.nodes {
        let kubelet = &mut node.kubelet;
        kubelet.insert("localStorageCapacityIsolation".into(), json!(true));
        // A minute by default.
        kubelet.insert("volumeStatsAggPeriod".into(), json!("2s"));
        if node.name == ALLOWING {
            kubelet.insert("allowedUnsafeSysctls".into(), json!([SYSCTL]));
        }
    }
    options
}

/// What kubectl told of Pods and slots, all the time.
struct Told {
    pods: Stream,
    slots: Stream,
}

/// A Pod as it once was.
struct PodLine {
    /// The ActualLRP or Task it was made for.
    record: String,
    name: String,
    reason: String,
    message: String,
    /// Line by line, for a failure.
    whole: String,
}

/// A slot as it once was.
struct SlotLine {
    crashes: String,
    rejected_by: String,
    error: String,
    whole: String,
}

impl Told {
    fn start(site: &Installed) -> Result<Self, Failure> {
        Ok(Self {
            pods: Stream::start(
                site,
                r#"kubectl get pods --watch -o 'jsonpath={.metadata.name}|{.spec.nodeName}|{.status.phase}|{.status.reason}|{.status.message}|{.status.containerStatuses[*].state}|{.metadata.deletionTimestamp}{"\n"}'"#,
            )?,
            slots: Stream::start(
                site,
                r#"kubectl get actuallrps --watch -o 'jsonpath={.metadata.name}|{.status.state}|{.status.cellName}|{.status.crashCount}|{.status.rejectedBy}|{.status.placementError}{"\n"}'"#,
            )?,
        })
    }

    /// All that was told of the Pods of this record.
    fn of(&self, record: &str) -> Vec<PodLine> {
        let lines = self.pods.lines();
        let read = |line: &String| {
            let fields: Vec<&str> = line.split('|').collect();
            let name = (*fields.first()?).to_owned();
            // The first eight letters of its guid end a Pod's name.
            let (record, _) = name.rsplit_once('-')?;
            Some(PodLine {
                record: record.to_owned(),
                reason: (*fields.get(3)?).to_owned(),
                message: (*fields.get(4)?).to_owned(),
                whole: line.clone(),
                name,
            })
        };
        let mut all: Vec<PodLine> = lines.iter().filter_map(read).collect();
        all.retain(|line| line.record == record);
        all
    }

    /// The Pods that were made for this record.
    fn made(&self, record: &str) -> BTreeSet<String> {
        self.of(record).into_iter().map(|line| line.name).collect()
    }

    /// The first Pod that was made for this record, as soon as there is one.
    async fn first_pod(&self, record: &str) -> Result<String, Failure> {
        eventually("a Pod is made", SOON, || async {
            self.made(record).pop_first()
        })
        .await
    }

    /// Waits until the node has taken the Pod of this record away, and another one is made. How long that took.
    async fn replaced(&self, record: &str) -> Result<Duration, Failure> {
        let gone = || async { self.reason_of(record).ok() };
        eventually("the Pod is taken away", SOON, gone).await?;
        let began = Instant::now();
        let another = || async { (self.made(record).len() > 1).then_some(()) };
        eventually("another Pod is made", SOON, another).await?;
        Ok(began.elapsed())
    }

    /// The Pods, of all records, that had this reason.
    fn with_reason(&self, reason: &str) -> BTreeSet<String> {
        let lines = self.pods.lines();
        let had = lines
            .iter()
            .filter(|line| line.split('|').nth(3) == Some(reason));
        had.filter_map(|line| Some(line.split('|').next()?.to_owned()))
            .collect()
    }

    /// What the first Pod of this record with a reason said.
    fn reason_of(&self, record: &str) -> Result<(String, String), Failure> {
        let mut all = self.of(record).into_iter();
        let found = all.find(|line| !line.reason.is_empty());
        let found = found.ok_or_else(|| format!("no Pod of {record} had a reason"))?;
        Ok((found.reason, found.message))
    }

    /// All that was told of this slot.
    fn slot(&self, name: &str) -> Vec<SlotLine> {
        let lines = self.slots.lines();
        let read = |line: &String| {
            let fields: Vec<&str> = line.split('|').collect();
            Some(SlotLine {
                crashes: (*fields.get(3)?).to_owned(),
                rejected_by: (*fields.get(4)?).to_owned(),
                error: (*fields.get(5)?).to_owned(),
                whole: line.clone(),
            })
        };
        let of_it = lines
            .iter()
            .filter(|line| line.split('|').next() == Some(name));
        of_it.filter_map(read).collect()
    }

    /// The slot was given back by this Cell for this reason, and never counted a crash.
    fn given_back(&self, slot: &str, cell: &str, error: &str) -> Result<(), Failure> {
        let lines = self.slot(slot);
        let back = |line: &&SlotLine| line.rejected_by.contains(cell) && line.error == error;
        let whole: Vec<&String> = lines.iter().map(|line| &line.whole).collect();
        if lines.iter().find(back).is_none() {
            return Err(
                format!("{slot} was not given back by {cell} with {error:?}: {whole:#?}").into(),
            );
        }
        match lines
            .iter()
            .all(|line| ["", "0"].contains(&line.crashes.as_str()))
        {
            true => Ok(()),
            false => Err(format!("{slot} has crashed: {whole:#?}").into()),
        }
    }
}

/// The notes of the Events about this record, by reason.
async fn events(
    site: &Installed,
    kind: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let list = site.json("get events.events.k8s.io").await?;
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in items(&list) {
        let about = &event["regarding"];
        if about["kind"] == kind && about["name"] == name {
            notes
                .entry(text(&event["reason"]))
                .or_default()
                .push(text(&event["note"]));
        }
    }
    Ok(notes)
}

/// Waits until an Event of this reason about the record says this.
async fn event(
    site: &Installed,
    kind: &str,
    name: &str,
    reason: &str,
    note: &str,
) -> Result<(), Failure> {
    let what = format!("{kind} {name}: Event {reason}: {note}");
    let last = std::sync::Mutex::new(BTreeMap::new());
    let said = eventually(&what, SOON, || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let notes = events(site, kind, name).await.ok()?;
        let found = notes
            .get(reason)
            .is_some_and(|all| all.iter().any(|one| one == note));
        *last.lock().ok()? = notes;
        found.then_some(())
    });
    said.await
        .map_err(|error| format!("{error}; told: {last:#?}").into())
}

/// Waits until a Task has this state, Cell and reason of failure.
async fn task_is(site: &Installed, name: &str, wanted: &str) -> Result<(), Failure> {
    let ask = format!(
        "get task {name} -o jsonpath={{.status.state}}|{{.status.cellName}}|{{.status.failureReason}}"
    );
    site.until(&ask, SOON, |now| now == wanted).await.map(drop)
}

/// The controllers' metrics count what was seen, and nothing twice. A controller that stops leading while a call is under way
/// does not count its answer, and on a busy machine that happens.
async fn the_metrics_agree(site: &Installed, told: &Told) -> Result<(), Failure> {
    let ask = format!(
        "get pods -n {NAMESPACE} -l app.kubernetes.io/component=controller -o jsonpath={{.items[*].status.podIP}}"
    );
    let addresses = site.kubectl(&ask).await?;
    let lines = told.pods.lines();
    let pods: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| line.split('|').next())
        .collect();
    // One Pod is the test's own.
    let made = pods.len() - 1;
    let refused = told.with_reason("SysctlForbidden").len();
    let expected = [
        ("diego_pod_creations_total{outcome=\"created\"}", 1, made),
        (
            "diego_pod_rejections_total{reason=\"not_admitted\"}",
            1,
            refused,
        ),
        ("diego_pod_rejections_total{reason=\"evicted\"}", 1, 2),
        ("diego_pod_rejections_total{reason=\"preempted\"}", 1, 1),
        ("diego_pod_rejections_total{reason=\"disrupted\"}", 0, 0),
        ("diego_actuallrp_crashes_total", 0, 0),
    ];
    let mut pages = Vec::new();
    for address in addresses.split(' ') {
        let page = http::get(&format!("{address}:8080"), "/metrics", SOON).await;
        let (status, page) = page.ok_or_else(|| format!("{address} tells no metrics"))?;
        assert_eq!(status, 200, "{page}");
        pages.push(page);
    }
    for (series, least, most) in expected {
        let told = pages.iter().filter_map(|page| http::metric(page, series));
        let told: f64 = told.sum();
        let agrees = (least as f64..=most as f64).contains(&told);
        assert!(agrees, "{series}: {told}, not {least} to {most}");
    }
    Ok(())
}

/// What a field of an object says.
fn field<'a>(object: &'a Value, path: &str) -> &'a Value {
    object.pointer(path).unwrap_or(&Value::Null)
}
