//! Looks at the installation from outside: every write that the API server tells of, and every process that was
//! ever started, and whether they keep what the design promises.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, Task, TaskState};
use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::task::JoinSet;

use crate::histories::Random;
use crate::support::{Failure, site::Site, unrest};

/// So many writes one stimulus may cause on one record; a hot loop makes hundreds.
const WRITES: u32 = 30;

/// No record is written so often within [`WINDOW`], whatever is done to the installation.
const WRITES_IN_WINDOW: usize = 60;

/// See [`WRITES_IN_WINDOW`].
const WINDOW: Duration = Duration::from_secs(15);

/// A run of an instance or a Task, as it wrote itself into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its DesiredLRP and index, or its Task.
    pub name: String,
    /// Whether it is a Task's.
    pub is_task: bool,
    /// The guid it was given.
    pub guid: String,
    /// Its process.
    pub pid: u32,
}

impl Run {
    /// Whether it still runs; another process that has got its number is not it.
    fn lives(&self) -> bool {
        let environ = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let wanted = format!("INSTANCE_GUID={}", self.guid);
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    }
}

/// What was seen of the writes.
#[derive(Debug, Default)]
struct Seen {
    violations: Vec<String>,
    /// Writes per object since the last stimulus.
    writes: BTreeMap<String, u32>,
    epochs: HashMap<String, i64>,
    outcomes: HashMap<String, Outcome>,
    /// When each object was written lately.
    recent: HashMap<String, VecDeque<Instant>>,
}

/// How a Task ended: failed, why, and its result.
type Outcome = (Option<bool>, Option<String>, Option<String>);

/// Watches until it is dropped.
pub struct Observer {
    log: PathBuf,
    seen: Arc<Mutex<Seen>>,
    _watches: JoinSet<()>,
}

impl Observer {
    /// Begins to watch.
    pub async fn start(client: Client, dir: &Path) -> Result<Observer, Failure> {
        let log = dir.join("runs.txt");
        std::fs::write(&log, "")?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut watches = JoinSet::new();
        watches.spawn(watch::<ActualLRP>(client.clone(), seen.clone(), Seen::lrp));
        watches.spawn(watch::<Task>(client.clone(), seen.clone(), Seen::task));
        watches.spawn(watch::<Cell>(client, seen.clone(), Seen::cell));
        Ok(Observer {
            log,
            seen,
            _watches: watches,
        })
    }

    /// What an instance's shell script begins with.
    pub fn log_line(&self) -> String {
        // `$$` in a template's command is one `$`.
        let words = "$DIEGO_PROCESS ${INSTANCE_INDEX:-task} $INSTANCE_GUID $$$$";
        format!("echo \"{words}\" >> {};", self.log.display())
    }

    /// Something is done to the installation: writes are counted anew.
    pub fn stimulus(&self) {
        self.seen.lock().expect("not poisoned").writes.clear();
    }

    fn runs(&self) -> Result<Vec<Run>, Failure> {
        let text = std::fs::read_to_string(&self.log)?;
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(read_run).collect()
    }

    /// A running instance of a DesiredLRP.
    pub fn some_living_instance(&self, random: &mut Random) -> Result<Option<Run>, Failure> {
        let mut living = self.runs()?;
        living.retain(|run| !run.is_task && run.lives());
        Ok((!living.is_empty()).then(|| living[random.index(living.len())].clone()))
    }

    /// What must hold at every moment.
    pub fn check(&self) -> Result<(), Failure> {
        let mut starts: BTreeMap<(bool, String), u32> = BTreeMap::new();
        for run in self.runs()? {
            // S2 for Tasks, by name, since no name is used twice; an instance's guid is one run.
            let what = if run.is_task { run.name } else { run.guid };
            *starts.entry((run.is_task, what)).or_default() += 1;
        }
        let mut violations: Vec<String> = starts
            .iter()
            .filter(|(_, starts)| **starts > 1)
            .map(|((_, what), starts)| format!("S2: {what} was started {starts} times"))
            .collect();
        violations.append(&mut self.seen.lock().expect("not poisoned").violations);
        if violations.is_empty() {
            return Ok(());
        }
        Err(violations.join("\n").into())
    }

    /// What is not as it should be once everything has come to rest.
    pub async fn difference(
        &self,
        site: &Site,
        wanted: &BTreeMap<String, i32>,
    ) -> Result<Option<String>, Failure> {
        let living: Vec<Run> = self.runs()?.into_iter().filter(Run::lives).collect();
        let mut guids: BTreeSet<String> = BTreeSet::new();
        for (process, instances) in wanted {
            let records = site.instances(process).await?;
            let indices: Vec<i32> = records.iter().map(|record| record.spec.index).collect();
            if indices != (0..*instances).collect::<Vec<_>>() {
                return Ok(Some(format!(
                    "{process} has the indices {indices:?} of {instances}"
                )));
            }
            for record in records {
                if let Some(why) = unrest(&record) {
                    return Ok(Some(why));
                }
                guids.extend(record.status.and_then(|status| status.instance_guid));
            }
        }
        for task in site.tasks().list(&Default::default()).await?.items {
            let status = task.status.clone().unwrap_or_default();
            match status.state {
                TaskState::Pending => return Ok(Some(format!("{} is Pending", task.name_any()))),
                TaskState::Running => guids.extend(status.instance_guid),
                TaskState::Completed | TaskState::Resolving => {}
            }
        }
        let running: BTreeSet<String> = living.iter().map(|run| run.guid.clone()).collect();
        let strangers: Vec<&Run> = living
            .iter()
            .filter(|run| !guids.contains(&run.guid))
            .collect();
        let lost: Vec<&String> = guids.difference(&running).collect();
        if strangers.is_empty() && lost.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!(
            "processes without a record: {strangers:?}; records without a process: {lost:?}"
        )))
    }
}

fn read_run(line: &str) -> Result<Run, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [process, index, guid, pid] = words[..] else {
        return Err(format!("a line of the log can't be read: {line:?}").into());
    };
    let is_task = index == "task";
    Ok(Run {
        name: if is_task {
            process.to_owned()
        } else {
            format!("{process}-{index}")
        },
        is_task,
        guid: guid.to_owned(),
        pid: pid.parse()?,
    })
}

async fn watch<K>(client: Client, seen: Arc<Mutex<Seen>>, look: fn(&mut Seen, &K))
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let mut events = watcher(Api::<K>::all(client), watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        if event.is_err() {
            // The API server is away, or gone with the test.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event {
            let mut seen = seen.lock().expect("not poisoned");
            let name = format!("{} {}", K::kind(&()), object.name_any());
            let writes = seen.writes.entry(name.clone()).or_default();
            *writes += 1;
            if *writes == WRITES {
                seen.violations.push(format!(
                    "S7: {name} was written {WRITES} times after one stimulus"
                ));
            }
            seen.rate(name);
            look(&mut seen, &object);
        }
    }
}

impl Seen {
    /// A slow loop that goes on over many stimuli.
    fn rate(&mut self, name: String) {
        let now = Instant::now();
        let recent = self.recent.entry(name.clone()).or_default();
        recent.push_back(now);
        while recent.front().is_some_and(|first| now - *first > WINDOW) {
            recent.pop_front();
        }
        if recent.len() == WRITES_IN_WINDOW {
            self.violations.push(format!(
                "S7: {name} was written {WRITES_IN_WINDOW} times within {WINDOW:?}"
            ));
        }
    }

    fn lrp(&mut self, lrp: &ActualLRP) {
        let Some(status) = &lrp.status else { return };
        let name = lrp.name_any();
        if status.state == ActualLRPState::Running && status.suspect.is_some() {
            self.violations
                .push(format!("S5: {name} runs and has a suspect: {status:?}"));
        }
        if let (Some(cell), Some(guid), Some(epoch)) =
            (&status.cell_name, &status.instance_guid, status.cell_epoch)
        {
            self.epoch(format!("{name} as {guid} on {cell}"), epoch);
        }
    }

    fn task(&mut self, task: &Task) {
        let (Some(status), Some(uid)) = (&task.status, task.uid()) else {
            return;
        };
        let ended = matches!(status.state, TaskState::Completed | TaskState::Resolving);
        let outcome = (
            status.failed,
            status.failure_reason.clone(),
            status.result.clone(),
        );
        match self.outcomes.get(&uid) {
            Some(known) if !ended || *known != outcome => {
                let violation = format!(
                    "S2: {} had ended with {known:?}, and is {status:?}",
                    task.name_any()
                );
                self.violations.push(violation);
            }
            Some(_) => {}
            None if ended => {
                self.outcomes.insert(uid, outcome);
            }
            None => {}
        }
    }

    fn cell(&mut self, cell: &Cell) {
        if let Some(epoch) = cell.status.as_ref().and_then(|status| status.epoch) {
            self.epoch(format!("Cell {}", cell.name_any()), epoch);
        }
    }

    fn epoch(&mut self, of: String, epoch: i64) {
        let known = self.epochs.entry(of.clone()).or_insert(epoch);
        if epoch < *known {
            self.violations.push(format!(
                "S4: the epoch of {of} went back from {known} to {epoch}"
            ));
        }
        *known = epoch;
    }
}
