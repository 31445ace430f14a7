//! The whole cluster: two at once, users, faults of the API server, and garbage collection.

use local_cluster::{Error, LocalCluster, Options, User};
use std::{
    process::Output,
    time::{Duration, Instant},
};
use tokio::time;

async fn start(options: Options) -> LocalCluster {
    LocalCluster::start(options)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Runs kubectl, which must succeed, and returns what it prints.
async fn kubectl(cluster: &LocalCluster, args: &[&str]) -> String {
    let output = cluster.kubectl(args).await.unwrap();
    assert!(
        output.status.success(),
        "kubectl {args:?}: {}",
        complaint(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn list_pods_as(cluster: &LocalCluster, user: &str) -> Output {
    let kubeconfig = cluster.kubeconfig_for(user).unwrap();
    cluster
        .kubectl(&[
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "get",
            "pods",
            "-o",
            "name",
        ])
        .await
        .unwrap()
}

/// Waits until kubectl does not find the object any more, for at most 60 s.
async fn gone(cluster: &LocalCluster, object: &str) {
    let started = Instant::now();
    loop {
        let output = cluster.kubectl(&["get", object]).await.unwrap();
        if complaint(&output).contains("NotFound") {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{object} is still there: {}",
            complaint(&output)
        );
        time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_work_side_by_side() {
    let started = Instant::now();
    let (one, two) = tokio::join!(start(Options::default()), start(Options::default()));
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    assert_ne!(one.server_url(), two.server_url());
    kubectl(&one, &["create", "configmap", "only-in-one"]).await;
    assert!(
        !kubectl(&two, &["get", "configmaps", "-o", "name"])
            .await
            .contains("only-in-one")
    );
    drop(one);
    let versions = kubectl(&two, &["version"]).await;
    assert!(versions.contains("Client Version: v1.36.3"), "{versions}");
    assert!(versions.contains("Server Version: v1.36.3"), "{versions}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owned_objects_and_namespaces_are_collected() {
    let cluster = start(Options::default()).await;
    kubectl(&cluster, &["create", "configmap", "owner"]).await;
    kubectl(&cluster, &["create", "configmap", "owned"]).await;
    let uid = kubectl(
        &cluster,
        &[
            "get",
            "configmap",
            "owner",
            "-o",
            "jsonpath={.metadata.uid}",
        ],
    )
    .await;
    let owner = format!(
        r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":"{uid}"}}]}}}}"#
    );
    kubectl(&cluster, &["patch", "configmap", "owned", "-p", &owner]).await;
    kubectl(&cluster, &["delete", "configmap", "owner"]).await;
    gone(&cluster, "configmap/owned").await;

    kubectl(&cluster, &["create", "namespace", "short-lived"]).await;
    kubectl(
        &cluster,
        &["delete", "namespace", "short-lived", "--wait=false"],
    )
    .await;
    gone(&cluster, "namespace/short-lived").await;
    // A service account is there, so Pods are admitted.
    kubectl(&cluster, &["run", "pod", "--image=none"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_controllers_pods_are_admitted_and_the_api_server_comes_back_with_its_data() {
    let users = vec![
        User {
            name: "cell a".to_owned(),
            groups: vec!["cells".to_owned()],
        },
        User {
            name: "nobody".to_owned(),
            groups: vec![],
        },
    ];
    let mut cluster = start(Options {
        garbage_collection: false,
        users,
        ..Options::default()
    })
    .await;
    assert!(cluster.controllers().is_none());
    kubectl(&cluster, &["run", "pod", "--image=none"]).await;

    // RBAC is in force: rights come by group, as soon as the authorizer has seen the binding.
    kubectl(
        &cluster,
        &[
            "create",
            "clusterrole",
            "reader",
            "--verb=list",
            "--resource=pods",
        ],
    )
    .await;
    kubectl(
        &cluster,
        &[
            "create",
            "clusterrolebinding",
            "cells",
            "--clusterrole=reader",
            "--group=cells",
        ],
    )
    .await;
    let started = Instant::now();
    while !list_pods_as(&cluster, "cell a").await.status.success() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{}",
            complaint(&list_pods_as(&cluster, "cell a").await)
        );
    }
    let refused = complaint(&list_pods_as(&cluster, "nobody").await);
    assert!(refused.contains("Forbidden"), "{refused}");
    assert!(matches!(
        cluster.kubeconfig_for("stranger"),
        Err(Error::UnknownUser(_))
    ));

    let url = cluster.server_url();
    cluster.stop_apiserver().await;
    assert!(!cluster.apiserver().is_running());
    assert!(
        !cluster
            .kubectl(&["get", "pods"])
            .await
            .unwrap()
            .status
            .success()
    );
    cluster.restart_apiserver().await.unwrap();
    assert_eq!(cluster.server_url(), url);
    assert_eq!(
        kubectl(&cluster, &["get", "pods", "-o", "name"])
            .await
            .trim(),
        "pod/pod"
    );

    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert!(!dir.exists() || std::env::var_os("DIEGO_KEEP_LOGS").is_some());
}

#[tokio::test]
async fn a_server_that_refuses_its_arguments_is_quoted() {
    let options = Options {
        apiserver_args: vec!["--no-such-flag".to_owned()],
        ..Options::default()
    };
    let Err(error) = LocalCluster::start(options).await else {
        panic!("started")
    };
    assert!(matches!(error, Error::Exited { .. }), "{error}");
    assert!(
        error.to_string().contains("unknown flag: --no-such-flag"),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_name_must_be_free() {
    let options = Options {
        users: vec![User {
            name: "admin".to_owned(),
            groups: vec![],
        }],
        ..Options::default()
    };
    assert!(matches!(
        LocalCluster::start(options).await,
        Err(Error::Option(_))
    ));
}
