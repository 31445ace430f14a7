//! What a template asks of a plain process, and a refusal that names every field a plain process can't give.
//!
//! The controller's auction uses it to keep a template away from Cells with executor Process, the rep to run it.
//! `image`, `imagePullPolicy`, `imagePullSecrets`, `resources`, `resizePolicy`, `restartPolicy`, `tolerations`,
//! `metadata` and the container's `name` are accepted and not used beyond accounting: a process needs no image,
//! resources are counted and not enforced, and the restart policy is Diego's own.

mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

/// A template as a plain process can run it. `$(VAR)` references are not expanded yet, because the ports they
/// may name are only known where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its first arguments; never empty.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// The environment, in the order given: a later value may refer to an earlier one.
    pub env: Vec<(String, String)>,
    /// Where to run it; without it, in a directory of its own.
    pub working_dir: Option<String>,
    /// The TCP ports it listens on.
    pub ports: Vec<SpecPort>,
    /// How to tell that it is ready; without it, when every port accepts a connection.
    pub readiness: Option<Readiness>,
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

/// The readiness probe. It decides when the instance becomes Running; it is not asked again after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What to try.
    pub check: Check,
    /// How long to wait before the first try.
    pub initial_delay: Duration,
    /// The longest pause between two tries; the first ones come sooner, for the sake of fast recovery.
    pub period: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How many tries in a row must succeed.
    pub successes: u32,
}

/// What a readiness probe tries. Its port is the template's, not the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A TCP connection is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A GET is answered with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path, with a leading `/`.
        path: String,
        /// Headers to send.
        headers: Vec<(String, String)>,
    },
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
            [container] => refused.container(container, grace),
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
            Some(spec) if refused.list.is_empty() => Ok(spec),
            _ => Err(Unsupported {
                refusals: refused.list,
            }),
        }
    }

    /// The command line and environment with every `$(VAR)` expanded as Kubernetes does it. `given` are the
    /// variables of the Cell: they win over the template's, because only the Cell knows the ports.
    pub fn expand(
        &self,
        given: &BTreeMap<String, String>,
    ) -> (Vec<String>, BTreeMap<String, String>) {
        let mut env = given.clone();
        for (name, value) in &self.env {
            let value = expand(value, &env);
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

/// Replaces `$(NAME)` by its value; an unknown name stays as it is written, and `$$` is a plain `$`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
