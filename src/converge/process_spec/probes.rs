//! The probes of a template: what to try, how often, and what a plain process can't be asked.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::SpecPort;
use super::read::{Refused, is_set, port};

/// A readiness, liveness or startup probe, with the defaults of Kubernetes filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What to try.
    pub check: Check,
    /// How long after its start the first try comes.
    pub initial_delay: Duration,
    /// The pause between two tries. Until the instance is up, tries come sooner, for the sake of fast recovery.
    pub period: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How many tries in a row must succeed.
    pub successes: u32,
    /// How many tries in a row must fail.
    pub failures: u32,
    /// How long the instance may take to end after SIGTERM when this probe is why it is stopped.
    pub grace: Option<Duration>,
}

/// What a probe tries. Its port is the template's, not the machine's.
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
    /// A command exits with status 0.
    Exec {
        /// The program and its arguments; never empty.
        command: Vec<String>,
    },
}

/// Which of the three probes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Readiness,
    Liveness,
    Startup,
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Of::Readiness => "readiness",
            Of::Liveness => "liveness",
            Of::Startup => "startup",
        })
    }
}

impl Refused {
    /// Judges a probe. `None` where nothing can be made of it.
    pub(super) fn probe(&mut self, of: Of, probe: &v1::Probe, ports: &[SpecPort]) -> Option<Probe> {
        let v1::Probe {
            exec,
            failure_threshold,
            grpc,
            http_get,
            initial_delay_seconds,
            period_seconds,
            success_threshold,
            tcp_socket,
            termination_grace_period_seconds,
            timeout_seconds,
        } = probe;
        let refused = self.list.len();
        let at = |field: &str| format!("spec.containers[0].{of}Probe.{field}");
        if grpc.is_some() {
            self.say(&format!("a {of} probe by gRPC ({})", at("grpc")));
        }
        if of != Of::Readiness && success_threshold.is_some_and(|n| n != 1) {
            self.say(&format!(
                "a {of} probe that must succeed more than once ({})",
                at("successThreshold")
            ));
        }
        let check = match (tcp_socket, http_get, exec) {
            (Some(tcp), None, None) => self.tcp(of, tcp, ports),
            (None, Some(get), None) => self.http(of, get, ports),
            (None, None, Some(exec)) => {
                let command = exec.command.clone().unwrap_or_default();
                if command.first().is_none_or(|program| program.is_empty()) {
                    self.say(&format!(
                        "a {of} probe without a command ({})",
                        at("exec.command")
                    ));
                }
                Some(Check::Exec { command })
            }
            (None, None, None) if grpc.is_some() => None,
            (None, None, None) => {
                self.say(&format!(
                    "a {of} probe that tries nothing (spec.containers[0].{of}Probe)"
                ));
                None
            }
            (_, _, _) => {
                self.say(&format!(
                    "a {of} probe of several kinds (spec.containers[0].{of}Probe)"
                ));
                None
            }
        };
        let check = check.filter(|_| self.list.len() == refused)?;
        let seconds = |value: &Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|s| u64::try_from(s).ok()).unwrap_or(default))
        };
        let times = |value: &Option<i32>, default: u32| {
            value
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(default)
                .max(1)
        };
        Some(Probe {
            check,
            initial_delay: seconds(initial_delay_seconds, 0),
            period: seconds(period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: times(success_threshold, 1),
            failures: times(failure_threshold, 3),
            grace: termination_grace_period_seconds
                .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        })
    }

    fn tcp(&mut self, of: Of, tcp: &v1::TCPSocketAction, ports: &[SpecPort]) -> Option<Check> {
        let v1::TCPSocketAction { host, port } = tcp;
        self.other_host(of, host, "tcpSocket");
        Some(Check::Tcp {
            port: self.probed(of, port, ports, "tcpSocket")?,
        })
    }

    fn http(&mut self, of: Of, get: &v1::HTTPGetAction, ports: &[SpecPort]) -> Option<Check> {
        let v1::HTTPGetAction {
            host,
            http_headers,
            path,
            port,
            scheme,
        } = get;
        self.other_host(of, host, "httpGet");
        if scheme.as_ref().is_some_and(|scheme| scheme != "HTTP") {
            self.say(&format!(
                "a {of} probe by TLS (spec.containers[0].{of}Probe.httpGet.scheme)"
            ));
        }
        let headers: Vec<_> = http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        let path = path.as_deref().unwrap_or_default().trim_start_matches('/');
        let path = format!("/{path}");
        let texts = headers.iter().flat_map(|(name, value)| [name, value]);
        if texts.chain([&path]).any(|text| has_control(text)) {
            self.say(&format!(
                "a request with control characters (spec.containers[0].{of}Probe.httpGet)"
            ));
        }
        Some(Check::Http {
            port: self.probed(of, port, ports, "httpGet")?,
            path,
            headers,
        })
    }

    fn other_host(&mut self, of: Of, host: &Option<String>, kind: &str) {
        if is_set(host) {
            self.say(&format!(
                "a {of} probe of another host (spec.containers[0].{of}Probe.{kind}.host)"
            ));
        }
    }

    /// The port a probe means, by number or by name.
    fn probed(
        &mut self,
        of: Of,
        wanted: &IntOrString,
        ports: &[SpecPort],
        kind: &str,
    ) -> Option<u16> {
        let found = match wanted {
            IntOrString::Int(number) => port(*number),
            IntOrString::String(name) => ports
                .iter()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port),
        };
        if found.is_none() {
            self.say(&format!(
                "a {of} probe of a port that is not declared (spec.containers[0].{of}Probe.{kind}.port)"
            ));
        }
        found
    }
}

fn has_control(text: &str) -> bool {
    text.contains(|c: char| c.is_control())
}
