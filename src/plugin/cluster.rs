//! The cluster as the user's kubeconfig and rights show it: every error in words with a remedy.

use std::fmt::Debug;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions, WatchParams};
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
    /// The flags that mean this cluster and user, for command lines that are to be pasted: ` --context prod`.
    pub flags: String,
    /// The same for helm, which has other names for them.
    pub helm_flags: String,
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
            flags: flags(common, ["--kubeconfig", "--context", "--as"]),
            helm_flags: flags(common, ["--kubeconfig", "--kube-context", "--kube-as-user"]),
        })
    }

    /// What begins a command line that is to be pasted.
    pub fn command(&self) -> String {
        format!("kubectl diego{}", self.flags)
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

    /// Whether this kind may be listed and watched now. Nothing is waited for but the beginning of the answer.
    ///
    /// # Errors
    /// When the API server does not let them be watched.
    pub async fn watchable<K>(&self, api: &Api<K>) -> Result<(), Failure>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let wrong = |error| Failure::of_call(&error, &self.server);
        let one = ListParams::default().limit(1);
        bounded(api.list(&one)).await.map_err(wrong)?;
        let begin = async {
            let watch = kube::core::Request::new(api.resource_url());
            let watch = watch.watch(&WatchParams::default().timeout(1), "0");
            let watch = watch.map_err(kube::Error::BuildRequest)?;
            self.client.request_stream(watch).await.map(drop)
        };
        bounded(begin).await.map_err(wrong)
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

    /// Deletes this object as it was read; false when it has changed since.
    ///
    /// # Errors
    /// When it is not there, or the API server does not want it.
    pub async fn delete<K>(&self, api: &Api<K>, kind: Kind, object: &K) -> Result<bool, Failure>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let name = object.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: object.resource_version(),
            }),
            ..DeleteParams::default()
        };
        match bounded(api.delete(&name, &params)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) if error.is_not_found() => Err(self.not_found(api, kind, &name).await),
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
            flags: self.flags.clone(),
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

fn flags(common: &Common, names: [&str; 3]) -> String {
    let path = common.kubeconfig.as_ref();
    let values = [
        path.map(|path| path.to_string_lossy().into_owned()),
        common.context.clone(),
        common.user.clone(),
    ];
    let set = names
        .into_iter()
        .zip(values)
        .filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(&value?))));
    set.collect()
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::plugin::args::Cli;

    #[test]
    fn what_is_pasted_means_the_same_cluster() {
        let of = |line: &[&str]| {
            let cli = Cli::try_parse_from(line).expect("a command line");
            flags(&cli.common, ["--kubeconfig", "--context", "--as"])
        };
        assert_eq!(of(&["kubectl-diego", "top", "-n", "prod"]), "");
        let line = [
            "kubectl-diego",
            "top",
            "--context",
            "prod",
            "--kubeconfig",
            "/my files/it's",
        ];
        assert_eq!(
            of(&line),
            " --kubeconfig '/my files/it'\\''s' --context prod"
        );
    }
}
