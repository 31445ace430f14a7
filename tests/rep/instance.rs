//! Starts an instance as the rep does, from a template and below the real supervisor.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diego_operator::converge::process_spec::ProcessSpec;
use diego_operator::rep::environ::Who;
use diego_operator::rep::fence::Deadlines;
use diego_operator::rep::outcome::End;
use diego_operator::rep::ports::Ports;
use diego_operator::rep::process::{Event, Handle, Launch, start};
use diego_operator::rep::workdir::{InstanceDir, WorkDir};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{DEADLINE, diego, guid, marked};

/// A started instance.
pub struct Instance {
    pub guid: String,
    pub handle: Handle,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub ports: Arc<Ports>,
    pub dir: InstanceDir,
    pub root: TempDir,
}

/// What is started.
pub struct Wanted<'a> {
    pub script: &'a str,
    pub ports: Vec<Value>,
    /// More fields of the container.
    pub more: Value,
    pub grace: Duration,
    pub start_timeout: Option<Duration>,
    pub probe: bool,
    pub log_limit: u64,
    pub fence: Option<Deadlines>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Wanted {
            script: "",
            ports: vec![],
            more: json!({}),
            grace: Duration::from_secs(10),
            start_timeout: None,
            probe: true,
            log_limit: 10 << 20,
            fence: None,
        }
    }
}

pub fn script(script: &str) -> Wanted<'_> {
    Wanted {
        script,
        ..Wanted::default()
    }
}

pub fn port(container_port: u16, name: &str) -> Value {
    json!({"containerPort": container_port, "name": name})
}

/// What a template asks for, with a grace period that may be shorter than a second.
fn spec(wanted: &Wanted<'_>) -> ProcessSpec {
    let mut container = json!({
        "name": "web", "command": ["sh", "-c"], "args": [wanted.script], "ports": wanted.ports,
    });
    for (key, value) in wanted.more.as_object().expect("an object") {
        container[key] = value.clone();
    }
    let template = serde_json::from_value(json!({"spec": {"containers": [container]}}));
    let mut spec =
        ProcessSpec::from_template(&template.expect("a template")).expect("a process can do it");
    spec.grace = wanted.grace;
    spec
}

pub fn launch(wanted: Wanted<'_>) -> Instance {
    let root = tempfile::tempdir().expect("a directory");
    let guid = guid();
    let dir = WorkDir::open(root.path())
        .and_then(|work| work.with_log_limit(wanted.log_limit).create(&guid))
        .expect("the instance's directory");
    let spec = spec(&wanted);
    let ports = Arc::new(Ports::allocate(&spec.ports).expect("free ports"));
    let who = Who {
        cell_id: "cell-1".into(),
        address: "127.0.0.1".into(),
        namespace: "default".into(),
        process: "web".into(),
        index: Some(3),
        guid: guid.clone(),
    };
    let launch = Launch {
        who,
        spec,
        ports: ports.clone(),
        dir: dir.clone(),
        start_timeout: wanted.start_timeout,
        probe: wanted.probe,
        fence: wanted.fence,
        hold: None,
    };
    let (tell, events) = mpsc::unbounded_channel();
    let handle = start(diego(), launch, move |event| drop(tell.send(event)));
    Instance {
        guid,
        handle,
        events,
        ports,
        dir,
        root,
    }
}

impl Instance {
    pub async fn event(&mut self) -> Event {
        tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("not the last one")
    }

    pub async fn end(&mut self) -> End {
        loop {
            if let Event::Ended(end) = self.event().await {
                return end;
            }
        }
    }

    /// What it wrote into a file of its directory.
    pub async fn written(&self, name: &str) -> String {
        let path = self.dir.cwd().join(name);
        let deadline = Instant::now() + DEADLINE;
        loop {
            match fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text,
                Ok(_) | Err(_) => assert!(Instant::now() < deadline, "nothing in {name}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many of its processes run.
    pub async fn processes(&self, holds: impl Fn(usize) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let running = marked(&self.guid);
            if holds(running.len()) {
                return;
            }
            assert!(Instant::now() < deadline, "still running: {running:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One of its log files; empty if there is none.
    pub fn log(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.logs().dir.join(name)).unwrap_or_default()
    }
}
