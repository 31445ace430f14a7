//! What was read of a cluster: values only, from which the rules make findings.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{ActualLRP, Cell, Task};
use crate::plugin::failure::Failure;

/// What was read, or why it was not.
pub type Read<T> = Result<T, Failure>;

/// How commands begin that are to be pasted.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The flags of kubectl and of this plugin that mean this cluster and user: ` --context prod`.
    pub kubectl: String,
    /// The same of helm.
    pub helm: String,
}

/// What the API server says of itself.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its URL.
    pub url: String,
    /// Its version.
    pub version: String,
    /// The whole second of its clock that it wrote into its answer.
    pub date: Option<Timestamp>,
    /// The clock here when it was asked.
    pub asked: Timestamp,
    /// The clock here when it had answered.
    pub answered: Timestamp,
}

impl Server {
    /// The time by which ages are told: the server's, where it tells it.
    pub fn now(&self) -> Timestamp {
        self.date.unwrap_or(self.answered)
    }
}

/// A right, and whether the user has it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it is needed for.
    pub purpose: &'static str,
    /// The verb.
    pub verb: &'static str,
    /// The resource, with its group.
    pub resource: String,
    /// Whether the user has it.
    pub allowed: bool,
}

/// A kind of ours, and what is on the API server of it.
#[derive(Debug, Clone)]
pub struct Crd {
    /// The one of this program.
    pub ours: CustomResourceDefinition,
    /// The API server's, if there is one.
    pub theirs: Read<Option<CustomResourceDefinition>>,
}

/// Where objects of the installation were looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces.
    All,
    /// In this one only.
    One(String),
}

/// Programs of ours as Kubernetes has them.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The controllers' Deployments.
    pub deployments: Read<Vec<Deployment>>,
    /// The reps' DaemonSets.
    pub daemon_sets: Read<Vec<DaemonSet>>,
    /// The Pods of both.
    pub pods: Read<Vec<Pod>>,
    /// Where they were looked for.
    pub scope: Scope,
    /// The release that owns the object of which there can be one only, with its namespace.
    pub owner: Option<(String, String)>,
}

/// What the metrics of one controller say.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its Pod.
    pub pod: String,
    /// The text.
    pub text: Read<String>,
}

/// What makes Prometheus look at us, by its operator's kinds.
#[derive(Debug, Clone, Default)]
pub struct Monitors {
    /// Whether the API server has these kinds.
    pub operator: bool,
    /// ServiceMonitors of ours.
    pub services: usize,
    /// PodMonitors of ours.
    pub pods: usize,
    /// PrometheusRules of ours.
    pub rules: usize,
}

/// What a Prometheus in the cluster knows.
#[derive(Debug, Clone)]
pub struct Scraped {
    /// Its Service.
    pub service: String,
    /// So many controllers and reps it has heard of, or why it does not say.
    pub counts: Read<(u64, u64)>,
}

/// All that `check` looks at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How commands begin.
    pub words: Words,
    /// The API server.
    pub server: Server,
    /// What the user may do.
    pub rights: Read<Vec<Asked>>,
    /// Our kinds.
    pub crds: Vec<Crd>,
    /// Our programs.
    pub programs: Programs,
    /// The Leases by which controllers are elected.
    pub leaders: Read<Vec<Lease>>,
    /// The Leases of Cells, where the presence is kept in them.
    pub presences: Read<Vec<Lease>>,
    /// The Nodes.
    pub nodes: Read<Vec<Node>>,
    /// The Leases of Nodes.
    pub node_leases: Read<Vec<Lease>>,
    /// The metrics of the controllers that are Pods.
    pub pages: Vec<Page>,
    /// The Cells.
    pub cells: Read<Vec<Cell>>,
    /// The instances.
    pub lrps: Read<Vec<ActualLRP>>,
    /// The Tasks.
    pub tasks: Read<Vec<Task>>,
    /// What makes Prometheus look at us.
    pub monitors: Read<Monitors>,
    /// What it knows, where it can be asked.
    pub scraped: Read<Option<Scraped>>,
}

/// What `check --pre` looks at.
#[derive(Debug, Clone)]
pub struct Before {
    /// How commands begin.
    pub words: Words,
    /// The API server.
    pub server: Server,
    /// What the user may do.
    pub rights: Read<Vec<Asked>>,
    /// Groups of kinds that are needed, and whether the API server has each.
    pub groups: Vec<(&'static str, Read<bool>)>,
    /// Our kinds.
    pub crds: Vec<Crd>,
    /// Our programs.
    pub programs: Programs,
    /// The Nodes.
    pub nodes: Read<Vec<Node>>,
}

/// When the API server wrote what a Lease's holder last renewed, by its own clock, to the second below.
pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    let owns = |fields: &serde_json::Value| !fields["f:spec"]["f:renewTime"].is_null();
    let entries = lease.metadata.managed_fields.iter().flatten();
    let times = entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|all| owns(&all.0)))
        .filter_map(|entry| entry.time.as_ref().map(|time| time.0));
    times.max().or_else(|| said(lease))
}

/// When its holder renewed it, by the holder's clock.
pub fn said(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

/// A label of an object, or nothing.
pub fn label<'a>(object: &'a impl kube::Resource, key: &str) -> &'a str {
    let labels = object.meta().labels.as_ref();
    labels
        .and_then(|labels| labels.get(key))
        .map_or("", String::as_str)
}

/// The namespace of an object that has one.
pub fn namespace(object: &impl kube::Resource) -> String {
    ResourceExt::namespace(object).unwrap_or_default()
}
