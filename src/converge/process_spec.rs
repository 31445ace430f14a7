//! What a template asks of a plain process, and a refusal that names every field a plain process can't give.
//!
//! The controller's auction uses it to keep a template away from Cells with executor Process, the rep to run it.
//! `image`, `imagePullPolicy`, `imagePullSecrets`, `resources`, `resizePolicy`, `restartPolicy`, `tolerations`,
//! `metadata` and the container's `name` are accepted and not used beyond accounting: a process needs no image,
//! resources are counted and not enforced, and the restart policy is Diego's own.

mod env;
mod probes;
mod read;
mod size;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

pub use env::{EnvValue, Field, expand};
pub use probes::{Check, Probe};

/// A template as a plain process can run it. `$(VAR)` references are not expanded yet, because the ports they
/// may name are only known where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its first arguments; never empty.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// The environment, in the order given: a later value may refer to an earlier one.
    pub env: Vec<(String, EnvValue)>,
    /// Where to run it; without it, in a directory of its own.
    pub working_dir: Option<String>,
    /// The TCP ports it listens on.
    pub ports: Vec<SpecPort>,
    /// How to tell that it is ready; without it, when every port accepts a connection.
    pub readiness: Option<Probe>,
    /// How to tell that it still works, once it is ready.
    pub liveness: Option<Probe>,
    /// How to tell that it has started; the other two are not asked before that.
    pub startup: Option<Probe>,
    /// How long it may take to end after SIGTERM.
    pub grace: Duration,
}

/// One declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecPort {
    /// The port the template declares.
    pub container_port: u16,
    /// The port of the machine it wants, if it wants a certain one.
    pub host_port: Option<u16>,
    /// The port's name.
    pub name: Option<String>,
}

/// Why a plain process can't do what a template asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Each thing that can't be given, with its field: `volumes (spec.volumes)`.
    pub refusals: Vec<String>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a Cell with executor Process can't give: {}",
            self.refusals.join(", ")
        )
    }
}

impl std::error::Error for Unsupported {}

impl ProcessSpec {
    /// Reads a template.
    ///
    /// # Errors
    /// Everything in it that a plain process would silently not honour.
    pub fn from_template(template: &PodTemplateSpec) -> Result<ProcessSpec, Unsupported> {
        let mut refused = read::Refused::default();
        let default = PodSpec::default();
        let pod = template.spec.as_ref().unwrap_or(&default);
        let grace = refused.pod(pod);
        let spec = match pod.containers.as_slice() {
            [container] => refused.container(container, template.metadata.as_ref(), grace),
            [] => {
                refused.say("nothing to run (spec.containers is empty)");
                None
            }
            several => {
                refused.say(&format!(
                    "several containers (spec.containers has {})",
                    several.len()
                ));
                None
            }
        };
        match spec {
            Some(spec) if refused.list.is_empty() => {
                if size::is_too_large(&spec) {
                    let refusal = format!(
                        "more than {} bytes of command line and environment, with every $(VAR) expanded (spec.containers[0].env)",
                        size::LIMIT
                    );
                    return Err(Unsupported {
                        refusals: vec![refusal],
                    });
                }
                Ok(spec)
            }
            _ => Err(Unsupported {
                refusals: refused.list,
            }),
        }
    }

    /// Whether one of its probes runs a command.
    pub fn has_command_probe(&self) -> bool {
        [&self.readiness, &self.liveness, &self.startup]
            .into_iter()
            .flatten()
            .any(|probe| matches!(probe.check, Check::Exec { .. }))
    }

    /// The command line and environment with every `$(VAR)` expanded as Kubernetes does it. `given` are the
    /// variables of the Cell: they win over the template's, because only the Cell knows the ports. `field` tells
    /// what only the Cell knows of the fields that the environment refers to.
    pub fn expand(
        &self,
        given: &BTreeMap<String, String>,
        field: impl Fn(Field) -> String,
    ) -> (Vec<String>, BTreeMap<String, String>) {
        let mut env = given.clone();
        for (name, value) in &self.env {
            let value = match value {
                EnvValue::Text(text) => expand(text, &env),
                EnvValue::Field(wanted) => field(*wanted),
            };
            if !given.contains_key(name) {
                env.insert(name.clone(), value);
            }
        }
        let argv = self
            .command
            .iter()
            .chain(&self.args)
            .map(|text| expand(text, &env))
            .collect();
        (argv, env)
    }
}

#[cfg(test)]
mod tests;
