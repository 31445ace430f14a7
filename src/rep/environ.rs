//! The environment of an instance: what the Cell tells it, and nothing of the rep's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::ports::Ports;
use super::workdir::GUID_VARIABLE;
use crate::converge::process_spec::{Field, ProcessSpec};

/// Where programs are found if the rep itself was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The Cell it runs on.
    pub cell_id: String,
    /// The address clients reach it at.
    pub address: String,
    /// The namespace of its record.
    pub namespace: String,
    /// Its DesiredLRP, or its Task.
    pub process: String,
    /// Its index; a Task has none.
    pub index: Option<i32>,
    /// This one run of it.
    pub guid: String,
}

impl Who {
    /// The variables of the Cell, which win over the template's.
    fn given(&self, ports: &Ports) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = ports.environment().into_iter().collect();
        let mut set = |name: &str, value: String| env.insert(name.into(), value);
        set(GUID_VARIABLE, self.guid.clone());
        set("DIEGO_PROCESS", self.process.clone());
        set("DIEGO_NAMESPACE", self.namespace.clone());
        set("DIEGO_CELL_ID", self.cell_id.clone());
        set("INSTANCE_GUID", self.guid.clone());
        set("CF_INSTANCE_GUID", self.guid.clone());
        set("CF_INSTANCE_IP", self.address.clone());
        set("CF_INSTANCE_INTERNAL_IP", self.address.clone());
        if let Some(index) = self.index {
            set("DIEGO_INSTANCE_INDEX", index.to_string());
            set("INSTANCE_INDEX", index.to_string());
            set("CF_INSTANCE_INDEX", index.to_string());
        }
        // Without ports they are there and empty, as in Diego.
        let first = ports.mappings.first().map(|port| port.host_port);
        let port = first.map(|port| port.to_string());
        set("CF_INSTANCE_PORT", port.unwrap_or_default());
        let address = first.map(|port| self.socket_address(port));
        set("CF_INSTANCE_ADDR", address.unwrap_or_default());
        let all = ports
            .mappings
            .iter()
            .map(|port| json!({ "external": port.host_port, "internal": port.container_port }));
        set("CF_INSTANCE_PORTS", Value::from_iter(all).to_string());
        env
    }

    fn socket_address(&self, port: i32) -> String {
        match self.address.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{}:{port}", self.address),
        }
    }

    /// What a template's `fieldRef` stands for.
    fn field(&self, field: Field) -> String {
        match (field, self.index) {
            (Field::Name, Some(index)) => format!("{}-{index}", self.process),
            (Field::Name, None) => self.process.clone(),
            (Field::Namespace, _) => self.namespace.clone(),
            (Field::Uid, _) => self.guid.clone(),
            (Field::NodeName, _) => self.cell_id.clone(),
            (Field::Address, _) => self.address.clone(),
        }
    }
}

/// The command line and the whole environment of an instance. `path` and `lang` are the rep's own.
pub fn command_line(
    spec: &ProcessSpec,
    who: &Who,
    ports: &Ports,
    home: &Path,
    path: Option<String>,
    lang: Option<String>,
) -> (Vec<String>, BTreeMap<String, String>) {
    let (argv, expanded) = spec.expand(&who.given(ports), |field| who.field(field));
    let mut env = BTreeMap::from([
        (
            "PATH".to_string(),
            path.unwrap_or_else(|| DEFAULT_PATH.into()),
        ),
        ("HOME".to_string(), home.to_string_lossy().into_owned()),
        ("LANG".to_string(), lang.unwrap_or_else(|| "C.UTF-8".into())),
    ]);
    env.extend(expanded);
    (argv, env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortMapping;
    use serde_json::from_value;

    fn spec(env: Value) -> ProcessSpec {
        let container = json!({
            "name": "a", "command": ["serve", "$(PORT)"], "args": ["$(DIEGO_INSTANCE_INDEX)"], "env": env,
        });
        let template = json!({
            "metadata": {"labels": {"tier": "$(HOME)"}},
            "spec": {"containers": [container]},
        });
        let template = from_value(template).expect("a template");
        ProcessSpec::from_template(&template).expect("supported")
    }

    fn who() -> Who {
        Who {
            cell_id: "cell-1".into(),
            address: "10.0.0.1".into(),
            namespace: "space".into(),
            process: "web".into(),
            index: Some(2),
            guid: "g".into(),
        }
    }

    fn lines(spec: &ProcessSpec, who: &Who, ports: &Ports) -> (Vec<String>, Vec<String>) {
        let (argv, env) = command_line(spec, who, ports, Path::new("/home"), None, None);
        let line = |(name, value)| format!("{name}={value}");
        (argv, env.into_iter().map(line).collect())
    }

    #[test]
    fn an_instance_knows_itself_and_nothing_of_the_rep() {
        let spec = spec(json!([
            {"name": "HOME", "value": "/srv"}, {"name": "DIEGO_CELL_ID", "value": "forged"},
        ]));
        let mut ports = Ports::default();
        for (container_port, host_port) in [(8080, 61001), (9090, 61002)] {
            ports.mappings.push(PortMapping {
                container_port,
                host_port,
                name: None,
            });
        }
        let (argv, env) = lines(&spec, &who(), &ports);
        assert_eq!(argv, ["serve", "61001", "2"]);
        assert_eq!(
            env,
            [
                "CF_INSTANCE_ADDR=10.0.0.1:61001",
                "CF_INSTANCE_GUID=g",
                "CF_INSTANCE_INDEX=2",
                "CF_INSTANCE_INTERNAL_IP=10.0.0.1",
                "CF_INSTANCE_IP=10.0.0.1",
                "CF_INSTANCE_PORT=61001",
                r#"CF_INSTANCE_PORTS=[{"external":61001,"internal":8080},{"external":61002,"internal":9090}]"#,
                "DIEGO_CELL_ID=cell-1",
                "DIEGO_INSTANCE_GUID=g",
                "DIEGO_INSTANCE_INDEX=2",
                "DIEGO_NAMESPACE=space",
                "DIEGO_PROCESS=web",
                "HOME=/srv",
                "INSTANCE_GUID=g",
                "INSTANCE_INDEX=2",
                "LANG=C.UTF-8",
                &format!("PATH={DEFAULT_PATH}"),
                "PORT=61001",
                "PORT_8080=61001",
                "PORT_9090=61002",
            ]
        );
    }

    #[test]
    fn a_task_without_ports_has_no_index_and_empty_ports() {
        let task = Who {
            index: None,
            address: "fd00::1".into(),
            ..who()
        };
        let (_, env) = lines(&spec(json!([])), &task, &Ports::default());
        for line in [
            "CF_INSTANCE_ADDR=",
            "CF_INSTANCE_PORT=",
            "CF_INSTANCE_PORTS=[]",
        ] {
            assert!(env.contains(&line.to_owned()), "{line} in {env:?}");
        }
        assert!(!env.iter().any(|line| line.contains("INDEX")), "{env:?}");
        assert_eq!(task.socket_address(80), "[fd00::1]:80");
        assert_eq!(task.field(Field::Name), "web");
    }

    #[test]
    fn fields_of_the_pod_are_those_of_the_instance() {
        for (path, value) in [
            ("metadata.name", "web-2"),
            ("metadata.namespace", "space"),
            ("metadata.uid", "g"),
            ("metadata.labels['tier']", "$(HOME)"),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "cell-1"),
            ("status.podIP", "10.0.0.1"),
            ("status.hostIP", "10.0.0.1"),
        ] {
            let spec = spec(json!([
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}},
                {"name": "B", "value": "<$(A)>"},
            ]));
            let (_, env) = lines(&spec, &who(), &Ports::default());
            for line in [format!("A={value}"), format!("B=<{value}>")] {
                assert!(env.contains(&line), "{line} in {env:?}");
            }
        }
    }
}
