//! The environment of an instance: what the Cell tells it, and nothing of the rep's own.

use std::collections::BTreeMap;
use std::path::Path;

use super::ports::Ports;
use super::workdir::GUID_VARIABLE;
use crate::converge::process_spec::ProcessSpec;

/// Where programs are found if the rep itself was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The Cell it runs on.
    pub cell_id: String,
    /// The address clients reach it at.
    pub address: String,
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
        set("DIEGO_CELL_ID", self.cell_id.clone());
        set("CF_INSTANCE_GUID", self.guid.clone());
        set("CF_INSTANCE_IP", self.address.clone());
        if let Some(index) = self.index {
            set("DIEGO_INSTANCE_INDEX", index.to_string());
            set("CF_INSTANCE_INDEX", index.to_string());
        }
        if let Some(port) = ports.mappings.first() {
            set("CF_INSTANCE_PORT", port.host_port.to_string());
        }
        env
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
    let (argv, expanded) = spec.expand(&who.given(ports));
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
    use std::time::Duration;

    #[test]
    fn an_instance_knows_itself_and_nothing_of_the_rep() {
        let spec = ProcessSpec {
            command: vec!["serve".into(), "$(PORT)".into()],
            args: vec!["$(DIEGO_INSTANCE_INDEX)".into()],
            env: vec![
                ("HOME".into(), "/srv".into()),
                ("DIEGO_CELL_ID".into(), "forged".into()),
            ],
            working_dir: None,
            ports: vec![],
            readiness: None,
            grace: Duration::ZERO,
        };
        let who = Who {
            cell_id: "cell-1".into(),
            address: "10.0.0.1".into(),
            process: "web".into(),
            index: Some(2),
            guid: "g".into(),
        };
        let mut ports = Ports::default();
        ports.mappings.push(PortMapping {
            container_port: 8080,
            host_port: 61001,
            name: None,
        });
        let (argv, env) = command_line(&spec, &who, &ports, Path::new("/home"), None, None);
        assert_eq!(argv, ["serve", "61001", "2"]);
        let text: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text,
            [
                "CF_INSTANCE_GUID=g",
                "CF_INSTANCE_INDEX=2",
                "CF_INSTANCE_IP=10.0.0.1",
                "CF_INSTANCE_PORT=61001",
                "DIEGO_CELL_ID=cell-1",
                "DIEGO_INSTANCE_GUID=g",
                "DIEGO_INSTANCE_INDEX=2",
                "DIEGO_PROCESS=web",
                "HOME=/srv",
                "LANG=C.UTF-8",
                &format!("PATH={DEFAULT_PATH}"),
                "PORT=61001",
                "PORT_8080=61001",
            ]
        );
    }
}
