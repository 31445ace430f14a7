//! What kubectl tells about LRPs and their Pods, as values; and a kubectl that watches beside the test.

use crate::{installed::SOON, site::Site, support::Failure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The label of an instance's Pod that names its DesiredLRP.
pub const DESIRED: &str = "diego.cloudfoundry.org/desired-lrp";

/// One slot of a DesiredLRP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The ActualLRP's name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// The Cell it is placed on.
    pub cell: String,
    /// The instance.
    pub guid: String,
    /// The Cell of the suspect instance, if there is one.
    pub suspect: Option<String>,
}

/// One Pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// The slot's index, for a Pod of an instance.
    pub index: Option<String>,
    /// Whether it is ready and nobody deletes it.
    pub ready: bool,
}

/// A kubectl beside the test, which writes down what it prints.
pub struct Watching {
    kubectl: Child,
    printed: PathBuf,
}

impl Site {
    /// What kubectl prints, read as JSON.
    pub async fn json(&self, args: &str) -> Result<Value, Failure> {
        let printed = self.kubectl(&format!("{args} -o json")).await?;
        Ok(serde_json::from_str(&printed)?)
    }

    /// The slots of a DesiredLRP, by name.
    pub async fn slots(&self, lrp: &str) -> Result<Vec<Slot>, Failure> {
        let list = self.json("get actuallrps").await?;
        let of_it = items(&list).filter(|item| item["spec"]["desiredLRPName"] == lrp);
        let mut slots: Vec<Slot> = of_it.map(slot).collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// The Pods with this label.
    pub async fn pods(&self, label: &str) -> Result<Vec<Pod>, Failure> {
        let list = self.json(&format!("get pods -l {label}")).await?;
        Ok(items(&list).map(pod).collect())
    }

    /// Waits until there are so many slots, all Running, without a suspect, and as wanted; and exactly one Pod for each, which is
    /// ready on the slot's Cell.
    pub async fn running(
        &self,
        lrp: &str,
        count: usize,
        wanted: impl Fn(&Slot) -> bool,
    ) -> Result<Vec<Slot>, Failure> {
        let label = format!("{DESIRED}={lrp}");
        let last = std::sync::Mutex::new(String::new());
        let whole = crate::support::eventually("all run, each once", SOON, || async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let slots = self.slots(lrp).await.ok()?;
            let pods = self.pods(&label).await.ok()?;
            *last.lock().ok()? = format!("{slots:#?}, {pods:#?}");
            let well = |slot: &Slot| {
                let (_, index) = slot.name.rsplit_once('-').unwrap_or_default();
                let mut its = pods
                    .iter()
                    .filter(|pod| pod.index.as_deref() == Some(index));
                let one = its
                    .next()
                    .is_some_and(|pod| pod.ready && pod.node == slot.cell);
                slot.state == "Running"
                    && slot.suspect.is_none()
                    && one
                    && its.next().is_none()
                    && wanted(slot)
            };
            (slots.len() == count && pods.len() == count && slots.iter().all(well)).then_some(slots)
        });
        let whole = whole.await;
        whole.map_err(|error| {
            let last = last.lock().map(|last| last.clone()).unwrap_or_default();
            format!(
                "{lrp}: {error}; last: {last}; logs in {}",
                self.dir().display()
            )
            .into()
        })
    }

    /// How often each reason was told about a Cell.
    pub async fn told(&self, cell: &str) -> Result<BTreeMap<String, u64>, Failure> {
        let list = self.json("get events.events.k8s.io -A").await?;
        let mut told = BTreeMap::new();
        for event in items(&list) {
            let about = &event["regarding"];
            if about["kind"] == "Cell" && about["name"] == cell {
                let times = event["series"]["count"].as_u64().unwrap_or(1);
                *told.entry(text(&event["reason"])).or_default() += times;
            }
        }
        Ok(told)
    }

    /// Starts a kubectl that watches; the arguments are separated by spaces.
    pub fn watch(&self, args: &str) -> Result<Watching, Failure> {
        let printed = self
            .dir()
            .join(format!("watch-{}.log", args.replace(['/', ' '], "-")));
        let mut command = Command::new(local_cluster::binary("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.nodes.cluster().kubeconfig());
        command.args(args.split_whitespace()).stdin(Stdio::null());
        command
            .env("KUBECACHEDIR", self.dir().join("kubectl-cache"))
            .stdout(File::create(&printed)?);
        Ok(Watching {
            kubectl: command.stderr(Stdio::null()).spawn()?,
            printed,
        })
    }
}

impl Watching {
    /// What it printed until now, each line as its words.
    pub fn lines(&self) -> Result<Vec<Vec<String>>, Failure> {
        let printed = fs::read_to_string(&self.printed)?;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        Ok(printed.lines().map(words).collect())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// A string, or nothing.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn slot(item: &Value) -> Slot {
    let status = &item["status"];
    Slot {
        name: text(&item["metadata"]["name"]),
        state: text(&status["state"]),
        cell: text(&status["cellName"]),
        guid: text(&status["instanceGuid"]),
        suspect: status["suspect"]["cellName"].as_str().map(str::to_owned),
    }
}

fn pod(item: &Value) -> Pod {
    let conditions = item["status"]["conditions"].as_array();
    let is_ready =
        |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    Pod {
        name: text(&item["metadata"]["name"]),
        node: text(&item["spec"]["nodeName"]),
        index: item["metadata"]["labels"]["diego.cloudfoundry.org/index"]
            .as_str()
            .map(str::to_owned),
        ready: conditions.into_iter().flatten().any(is_ready)
            && item["metadata"]["deletionTimestamp"].is_null(),
    }
}
