//! The node's container runtime, by the few calls of the Container Runtime Interface (CRI v1) that stopping needs.

mod messages;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::converge::pods::{LABEL_POLICY, STRICT};
use messages as m;

/// A runtime that lists is asked in milliseconds.
const LIST: Duration = Duration::from_secs(2);

/// Killing takes as long as the kernel takes to take the processes apart; the call is made again after that.
const STOP: Duration = Duration::from_secs(3);

/// As the kubelet has it: what a runtime may answer on a node with many containers.
const MAX_ANSWER: usize = 16 << 20;

/// Why the runtime did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    /// The address can't be one.
    #[error(
        "--cri-socket {0}: must be the path of a socket as unix:///PATH, such as unix:///run/containerd/containerd.sock"
    )]
    Address(String),
    /// It did not answer in time.
    #[error(
        "{call}: the container runtime at {socket} did not answer within {within:?}; look at the runtime's log"
    )]
    Timeout {
        /// The socket.
        socket: String,
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// It can't be reached, or it refused.
    #[error(
        "{call}: the container runtime at {socket} answered {words}; check that --cri-socket is the runtime's socket, mounted into this container, and that this program runs as root"
    )]
    Refused {
        /// The socket.
        socket: String,
        /// What was asked.
        call: &'static str,
        /// What came back.
        words: String,
    },
}

/// A Pod that was stopped, as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    name: String,
    namespace: String,
    uid: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.namespace, self.name, self.uid)
    }
}

/// What one round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// The Pods of which something ran, and that were stopped, or were tried to.
    pub found: Vec<Stopped>,
    /// The uids of all the Pods of Strict LRPs that the runtime knew.
    pub met: Vec<String>,
    /// The first thing that went wrong.
    pub trouble: Option<CriError>,
}

/// A connection to the runtime; it is made anew by itself.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    socket: String,
}

impl Cri {
    /// Connects with the first call.
    ///
    /// # Errors
    /// When this is not the address of a socket.
    pub fn new(socket: &str) -> Result<Self, CriError> {
        let wrong = || CriError::Address(socket.to_owned());
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        if !path.starts_with('/') {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| wrong())?;
        Ok(Self {
            channel: endpoint.connect_timeout(LIST).connect_lazy(),
            socket: path.to_owned(),
        })
    }

    /// The name and version of the runtime.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<String, CriError> {
        let answer: m::VersionResponse = self
            .call(
                "/runtime.v1.RuntimeService/Version",
                m::VersionRequest {},
                LIST,
            )
            .await?;
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// Kills all that runs in those Pods of Strict LRPs whose uid is `wanted`, all at once, and then takes the Pods down, so
    /// that nothing new can start in them.
    ///
    /// # Errors
    /// When the runtime does not tell what runs.
    pub async fn stop_strict(&self, wanted: impl Fn(&str) -> bool) -> Result<Round, CriError> {
        let all = self.strict_sandboxes().await?;
        let met: Vec<String> = all.iter().map(|one| stopped(one).uid).collect();
        let these = all.into_iter().zip(&met);
        let sandboxes: Vec<_> = these
            .filter_map(|(sandbox, uid)| wanted(uid).then_some(sandbox))
            .collect();
        if sandboxes.is_empty() {
            return Ok(Round {
                met,
                ..Round::default()
            });
        }
        let containers = match self.running_in(&sandboxes).await {
            Ok(containers) => containers,
            Err(error) => {
                return Ok(Round {
                    met,
                    trouble: Some(error),
                    ..Round::default()
                });
            }
        };
        let killed = join_all(containers.iter().map(|one| {
            let request = m::StopContainerRequest {
                container_id: one.id.clone(),
                timeout: 0,
            };
            self.call::<_, m::Nothing>("/runtime.v1.RuntimeService/StopContainer", request, STOP)
        }));
        let mut results = killed.await;
        let ready = sandboxes.iter().filter(|sandbox| sandbox.is_ready());
        let taken_down = join_all(ready.map(|sandbox| {
            let request = m::StopPodSandboxRequest {
                pod_sandbox_id: sandbox.id.clone(),
            };
            self.call::<_, m::Nothing>("/runtime.v1.RuntimeService/StopPodSandbox", request, STOP)
        }));
        results.extend(taken_down.await);
        let has_run = |sandbox: &&m::PodSandbox| {
            let mut containers = containers.iter();
            sandbox.is_ready() || containers.any(|one| one.pod_sandbox_id == sandbox.id)
        };
        Ok(Round {
            found: sandboxes.iter().filter(has_run).map(stopped).collect(),
            met,
            trouble: results.into_iter().find_map(Result::err),
        })
    }

    async fn strict_sandboxes(&self) -> Result<Vec<m::PodSandbox>, CriError> {
        let label = (LABEL_POLICY.to_owned(), STRICT.to_owned());
        let request = m::ListPodSandboxRequest {
            filter: Some(m::PodSandboxFilter {
                label_selector: HashMap::from([label]),
            }),
        };
        let answer: m::ListPodSandboxResponse = self
            .call("/runtime.v1.RuntimeService/ListPodSandbox", request, LIST)
            .await?;
        // Whatever a runtime makes of a filter: nothing else is ever stopped.
        let strict = |sandbox: &m::PodSandbox| {
            sandbox
                .labels
                .get(LABEL_POLICY)
                .is_some_and(|policy| policy == STRICT)
        };
        Ok(answer.items.into_iter().filter(strict).collect())
    }

    /// Labels of a Pod are its sandbox's, and not its containers'.
    async fn running_in(&self, sandboxes: &[m::PodSandbox]) -> Result<Vec<m::Container>, CriError> {
        let answer: m::ListContainersResponse = self
            .call(
                "/runtime.v1.RuntimeService/ListContainers",
                m::ListContainersRequest {},
                LIST,
            )
            .await?;
        let of_these = |one: &m::Container| {
            one.may_run()
                && sandboxes
                    .iter()
                    .any(|sandbox| sandbox.id == one.pod_sandbox_id)
        };
        Ok(answer.containers.into_iter().filter(of_these).collect())
    }

    async fn call<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        within: Duration,
    ) -> Result<A, CriError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let call = path.rsplit('/').next().unwrap_or_default();
        let socket = || self.socket.clone();
        let refused = |words: String| CriError::Refused {
            socket: socket(),
            call,
            words,
        };
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        let exchange = async {
            let ready = grpc.ready().await;
            ready.map_err(|error| refused(whole(&error)))?;
            let codec = ProstCodec::<Q, A>::default();
            let request = tonic::Request::new(request);
            let answer = grpc.unary(request, PathAndQuery::from_static(path), codec);
            match answer.await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(refused(format!("{:?}: {}", status.code(), whole(&status)))),
            }
        };
        let timeout = |_| CriError::Timeout {
            socket: socket(),
            call,
            within,
        };
        tokio::time::timeout(within, exchange)
            .await
            .map_err(timeout)?
    }
}

/// An error in the words of all its causes: the first ones often say only that something failed.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |words, cause| {
        let cause = cause.to_string();
        match words.contains(&cause) {
            true => words,
            false => format!("{words}: {cause}"),
        }
    })
}

/// Reads bytes as each of the answers that are used, and writes what was read: what a runtime may send is not ours.
#[doc(hidden)]
pub fn rewritten(bytes: &[u8]) -> [Option<Vec<u8>>; 3] {
    fn one<A: prost::Message + Default>(bytes: &[u8]) -> Option<Vec<u8>> {
        A::decode(bytes).ok().map(|answer| answer.encode_to_vec())
    }
    [
        one::<m::VersionResponse>(bytes),
        one::<m::ListPodSandboxResponse>(bytes),
        one::<m::ListContainersResponse>(bytes),
    ]
}

fn stopped(sandbox: &m::PodSandbox) -> Stopped {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    Stopped {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_address_is_that_of_a_socket() {
        for good in [
            "unix:///run/containerd/containerd.sock",
            "/run/crio/crio.sock",
        ] {
            assert!(Cri::new(good).is_ok(), "{good}");
        }
        for bad in ["", "unix://run/x.sock", "http://127.0.0.1:1", "run/x.sock"] {
            let error = Cri::new(bad).expect_err(bad).to_string();
            assert!(
                error.contains(&format!("--cri-socket {bad}:")) && error.contains("unix:///PATH"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_named() {
        let cri = Cri::new("unix:///nowhere/runtime.sock").expect("an address");
        let error = cri
            .version()
            .await
            .expect_err("nobody is there")
            .to_string();
        let words = [
            "Version",
            "/nowhere/runtime.sock",
            "No such file",
            "--cri-socket",
        ];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
