//! The messages of CRI v1 (`runtime.v1` of k8s.io/cri-api) that are needed, with the fields that are needed: protobuf
//! leaves out what is not asked for. The numbers are those of its `api.proto`.

use std::collections::HashMap;

/// `VersionRequest`; its one field is the kubelet's.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionRequest {}

/// `VersionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// `ListPodSandboxRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// `PodSandboxFilter`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxFilter {
    #[prost(map = "string, string", tag = "3")]
    pub label_selector: HashMap<String, String>,
}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(int32, tag = "3")]
    pub state: i32,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

impl PodSandbox {
    /// Whether containers can start in it: `SANDBOX_READY`.
    pub(super) fn is_ready(&self) -> bool {
        self.state == 0
    }
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `ListContainersRequest` without a filter.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListContainersRequest {}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(int32, tag = "6")]
    pub state: i32,
}

impl Container {
    /// Whether it is `CONTAINER_RUNNING` or `CONTAINER_UNKNOWN`; one that was only created can't start when its sandbox is down.
    pub(super) fn may_run(&self) -> bool {
        matches!(self.state, 1 | 3)
    }
}

/// `StopContainerRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StopContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Seconds between SIGTERM and SIGKILL; 0 is SIGKILL at once.
    #[prost(int64, tag = "2")]
    pub timeout: i64,
}

/// `StopPodSandboxRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StopPodSandboxRequest {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// `StopContainerResponse` and `StopPodSandboxResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}
