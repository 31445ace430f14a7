//! The cluster as the user's kubeconfig and rights show it: every error in words with a remedy.

use std::fmt::Debug;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::Common;
use super::failure::{Failure, near};
use super::kind::Kind;
use crate::api::{ActualLRP, Cell, Task};
use crate::client::{self, KubeArgs, bounded};
use crate::metrics::ClientMetrics;

/// Who wrote it, in `metadata.managedFields`.
const MANAGER: &str = "kubectl-diego";

/// A list is read in parts of so many objects: each has to come within the time of one call.
const PAGE: u32 = 500;

/// The cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its client.
    pub client: Client,
    /// The API server's URL.
    pub server: String,
    /// The namespace of ActualLRPs and Tasks; `None` is all of them.
    pub namespace: Option<String>,
    /// The same, also where all were asked for.
    pub one_namespace: String,
}

impl Cluster {
    /// The one that the flags and the kubeconfig mean. Nobody is asked yet.
    ///
    /// # Errors
    /// When they mean none.
    pub async fn new(common: &Common) -> Result<Cluster, Failure> {
        let args = KubeArgs {
            kubeconfig: common.kubeconfig.clone(),
            context: common.context.clone(),
        };
        let mut config = client::config(&args).await?;
        if let Some(user) = &common.user {
            config.auth_info.impersonate = Some(user.clone());
        }
        let metrics = ClientMetrics::new(&mut Registry::default());
        let client = client::build(&config, &metrics)?;
        let one_namespace = common
            .namespace
            .clone()
            .unwrap_or(config.default_namespace.clone());
        Ok(Cluster {
            client,
            server: config.cluster_url.to_string(),
            namespace: (!common.all_namespaces).then(|| one_namespace.clone()),
            one_namespace,
        })
    }

    /// The Cells.
    pub fn cells(&self) -> Api<Cell> {
        Api::all(self.client.clone())
    }

    /// The ActualLRPs or Tasks that are looked at.
    pub fn some<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The ActualLRPs or Tasks of one namespace, for what names one.
    pub fn own<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.one_namespace)
    }

    /// All objects, page by page.
    ///
    /// # Errors
    /// When the API server does not give them.
    pub async fn list<K>(&self, api: &Api<K>, fields: &str) -> Result<Vec<K>, Failure>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = ListParams::default().limit(PAGE);
        if !fields.is_empty() {
            params = params.fields(fields);
        }
        let mut all = Vec::new();
        loop {
            let page = bounded(api.list(&params)).await;
            let page = page.map_err(|error| Failure::of_call(&error, &self.server))?;
            all.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// One object by its name.
    ///
    /// # Errors
    /// When it is not there, or the API server does not give it.
    pub async fn get<K>(&self, api: &Api<K>, kind: Kind, name: &str) -> Result<K, Failure>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        match bounded(api.get_opt(name)).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(self.not_found(api, kind, name).await),
            Err(error) => Err(Failure::of_call(&error, &self.server)),
        }
    }

    /// Patches one object.
    ///
    /// # Errors
    /// When it is not there, or the API server does not want it.
    pub async fn patch<K>(
        &self,
        api: &Api<K>,
        kind: Kind,
        name: &str,
        patch: impl Serialize + Debug,
    ) -> Result<K, Failure>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        match bounded(api.patch(name, &params, &Patch::Merge(patch))).await {
            Ok(object) => Ok(object),
            Err(error) if error.is_not_found() => Err(self.not_found(api, kind, name).await),
            Err(error) => Err(Failure::of_call(&error, &self.server)),
        }
    }

    /// Deletes one object.
    ///
    /// # Errors
    /// When it is not there, or the API server does not want it.
    pub async fn delete<K>(&self, api: &Api<K>, kind: Kind, name: &str) -> Result<(), Failure>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        match bounded(api.delete(name, &DeleteParams::default())).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Err(self.not_found(api, kind, name).await),
            Err(error) => Err(Failure::of_call(&error, &self.server)),
        }
    }

    /// What it means that an object is not there; of the names that are, the nearest. Without the CRDs nothing is.
    pub async fn not_found<K>(&self, api: &Api<K>, kind: Kind, name: &str) -> Failure
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let others = match self.list(api, "").await {
            Ok(others) => others.iter().map(ResourceExt::name_any).collect(),
            Err(failure @ Failure::NoCrds(_)) => return failure,
            // Who may not list is not told what there is.
            Err(_) => Vec::new(),
        };
        let namespace = match kind {
            Kind::Cell => None,
            Kind::ActualLRP | Kind::Task => Some(self.one_namespace.clone()),
        };
        Failure::NotFound {
            kind,
            name: name.into(),
            namespace,
            near: near(name, others),
        }
    }

    /// Cells by their names, or all of them, by name.
    ///
    /// # Errors
    /// When one is not there, or the API server does not give them.
    pub async fn cells_named(&self, names: &[String]) -> Result<Vec<Cell>, Failure> {
        let api = self.cells();
        if names.is_empty() {
            let mut all = self.list(&api, "").await?;
            all.sort_by_key(ResourceExt::name_any);
            return Ok(all);
        }
        let mut some = Vec::new();
        for name in names {
            some.push(self.get(&api, Kind::Cell, name).await?);
        }
        Ok(some)
    }

    /// What was told of an object. Events of Cells are in namespace default.
    ///
    /// # Errors
    /// When the API server does not give them.
    pub async fn events(&self, kind: Kind, name: &str) -> Result<Vec<Event>, Failure> {
        let namespace = match kind {
            Kind::Cell => "default",
            Kind::ActualLRP | Kind::Task => &self.one_namespace,
        };
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let fields = format!("regarding.kind={},regarding.name={name}", kind.as_str());
        let mut events = self.list(&api, &fields).await?;
        let version = format!("{}/{}", crate::api::GROUP, crate::api::VERSION);
        events.retain(|event| {
            let about = event.regarding.as_ref();
            about.is_some_and(|about| about.api_version.as_ref() == Some(&version))
        });
        Ok(events)
    }

    /// The ActualLRPs that are looked at.
    ///
    /// # Errors
    /// When the API server does not give them.
    pub async fn actual_lrps(&self) -> Result<Vec<ActualLRP>, Failure> {
        self.list(&self.some(), "").await
    }

    /// The Tasks that are looked at.
    ///
    /// # Errors
    /// When the API server does not give them.
    pub async fn tasks(&self) -> Result<Vec<Task>, Failure> {
        self.list(&self.some(), "").await
    }
}
