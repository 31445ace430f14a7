//! Reads all that is looked at, everything at once.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

use super::ask::Asker;
use super::facts::{Before, Crd, Facts, Page, Programs, Read, Scope, Server, Words, label};
use super::rights;
use super::rules::release_of;
use crate::api::{GROUP, VERSION, crds};
use crate::controller::leader;
use crate::plugin::cluster::Cluster;
use crate::plugin::failure::Failure;
use crate::presence::kubernetes::{CELL, MARK};

/// Where the chart is told to be installed: looked at when not all namespaces may be.
pub const USUAL_NAMESPACE: &str = "diego-system";

/// Every object of the chart has it.
const OURS: &str = "app.kubernetes.io/part-of=diego";

/// The object that one release alone can own.
const INSTALLATION: &str = "diego-operator-installation";

/// Which part of the cluster is looked at.
pub struct Where<'a> {
    /// The namespace of the installation, where the user named it.
    pub own: Option<&'a str>,
    /// The namespace of the work that is looked at; `None` is all of them.
    pub work: Option<&'a str>,
}

/// Reads an installation.
pub struct Reader<'a> {
    /// Who asks.
    pub ask: Asker,
    /// Which part of it.
    pub at: &'a Where<'a>,
}

/// Reads an installation. `server` has answered already.
pub async fn facts(cluster: &Cluster, server: Server, at: &Where<'_>) -> Facts {
    let reader = Reader {
        ask: Asker::of(cluster),
        at,
    };
    let ask = &reader.ask;
    let client = || cluster.client.clone();
    let questions = rights::of_verbs(at.work);
    let labelled = ListParams::default().labels(OURS);
    let controllers = async {
        let programs = reader.programs().await;
        let pods = programs.pods.iter().flatten();
        let controllers =
            pods.filter(|pod| label(*pod, "app.kubernetes.io/component") == "controller");
        let running = controllers.filter(|pod| {
            pod.status
                .as_ref()
                .is_some_and(|status| status.pod_ip.is_some())
        });
        let pages: Vec<Page> = futures::future::join_all(running.map(|pod| ask.page(pod))).await;
        (programs, pages)
    };
    let leaders = ListParams::default().fields(&format!("metadata.name={}", leader::NAME));
    let presences = ListParams::default().labels(&format!("{MARK}={CELL}"));
    let cells = Api::all(client());
    let (lrps, tasks) = (work_of(cluster, at), work_of(cluster, at));
    let node_leases = Api::<Lease>::namespaced(client(), "kube-node-lease");
    let nodes = Api::<Node>::all(client());
    let everything = ListParams::default;
    let installation = async {
        futures::join!(
            ask.rights(&questions),
            reader.crds(),
            controllers,
            reader.own::<Lease>(leaders),
            reader.own::<Lease>(presences),
            reader.monitors(&labelled),
            reader.prometheus(),
        )
    };
    let objects = async {
        futures::join!(
            ask.list(&cells, everything()),
            ask.list(&lrps, everything()),
            ask.list(&tasks, everything()),
            ask.list(&nodes, everything()),
            ask.list(&node_leases, everything()),
        )
    };
    let (installation, objects) = futures::join!(installation, objects);
    let (rights, crds, (programs, pages), (leaders, _), (presences, _), monitors, scraped) =
        installation;
    let (cells, lrps, tasks, nodes, node_leases) = objects;
    Facts {
        words: words(cluster),
        server,
        rights,
        crds,
        programs,
        leaders,
        presences,
        nodes,
        node_leases,
        pages,
        cells,
        lrps,
        tasks,
        monitors,
        scraped,
    }
}

/// Reads what must be so before an installation.
pub async fn before(cluster: &Cluster, server: Server, at: &Where<'_>) -> Before {
    let reader = Reader {
        ask: Asker::of(cluster),
        at,
    };
    let ask = &reader.ask;
    let questions = rights::to_install(at.own.unwrap_or(USUAL_NAMESPACE));
    let nodes = Api::<Node>::all(cluster.client.clone());
    let needed = [
        "admissionregistration.k8s.io/v1",
        "apiextensions.k8s.io/v1",
        "coordination.k8s.io/v1",
        "flowcontrol.apiserver.k8s.io/v1",
    ];
    let groups = needed.map(|group| async move { (group, serves(ask, group).await) });
    let (rights, groups, crds, programs, nodes) = futures::join!(
        ask.rights(&questions),
        futures::future::join_all(groups),
        reader.crds(),
        reader.programs(),
        ask.list(&nodes, ListParams::default()),
    );
    Before {
        words: words(cluster),
        server,
        rights,
        groups,
        crds,
        programs,
        nodes,
    }
}

fn words(cluster: &Cluster) -> Words {
    Words {
        kubectl: cluster.flags.clone(),
        helm: cluster.helm_flags.clone(),
    }
}

fn work_of<K>(cluster: &Cluster, at: &Where<'_>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match at.work {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    }
}

/// Whether the API server has a group in this version.
///
/// # Errors
/// When it does not say.
pub async fn serves(ask: &Asker, group: &str) -> Read<bool> {
    match ask.text(&format!("/apis/{group}")).await {
        Ok(_) => Ok(true),
        Err(Failure::Refused(words)) if words.starts_with("404") => Ok(false),
        Err(failure) => Err(failure),
    }
}

impl Reader<'_> {
    /// Objects of the installation: in its namespace where that was named, else in all, and where that is not allowed in the
    /// usual one.
    async fn own<K>(&self, params: ListParams) -> (Read<Vec<K>>, Scope)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let within = |space: &str| Api::<K>::namespaced(self.ask.client.clone(), space);
        if let Some(space) = self.at.own {
            return (
                self.ask.list(&within(space), params).await,
                Scope::One(space.into()),
            );
        }
        let all = Api::<K>::all(self.ask.client.clone());
        match self.ask.list(&all, params.clone()).await {
            Err(Failure::NoRight(_)) => {
                let some = self.ask.list(&within(USUAL_NAMESPACE), params).await;
                (some, Scope::One(USUAL_NAMESPACE.into()))
            }
            all => (all, Scope::All),
        }
    }

    async fn crds(&self) -> Vec<Crd> {
        let api = Api::<CustomResourceDefinition>::all(self.ask.client.clone());
        let all = crds::all().into_iter().map(|file| async {
            let theirs = self.ask.get(&api, &file.crd.name_any()).await;
            Crd {
                ours: file.crd,
                theirs,
            }
        });
        let group = format!("{GROUP}/{VERSION}");
        let (mut all, served) =
            futures::join!(futures::future::join_all(all), serves(&self.ask, &group));
        for crd in &mut all {
            // Who may not read CRDs may still ask what is served.
            if let (Err(Failure::NoRight(_)), Ok(false)) = (&crd.theirs, &served) {
                crd.theirs = Ok(None);
            }
        }
        all
    }

    async fn programs(&self) -> Programs {
        let of = |component: &str| {
            let labels = format!("{OURS},app.kubernetes.io/component={component}");
            ListParams::default().labels(&labels)
        };
        let roles = Api::<ClusterRole>::all(self.ask.client.clone());
        let ((deployments, scope), (daemon_sets, _), (pods, _), role) = futures::join!(
            self.own::<Deployment>(of("controller")),
            self.own::<DaemonSet>(of("rep")),
            self.own::<Pod>(ListParams::default().labels(OURS)),
            self.ask.get(&roles, INSTALLATION),
        );
        let owner = role.ok().flatten();
        Programs {
            deployments,
            daemon_sets,
            pods,
            scope,
            owner: owner.and_then(|role| release_of(&role)),
        }
    }
}
