//! Whoever breaks a node has the token of its rep. With it, nothing of another node can be touched: tried one by one against a
//! real API server with RBAC on, under the chart's own roles and admission policy.

mod attempts;

use std::time::{Duration, Instant};

use local_cluster::LocalCluster;

use crate::api_server::{apply, kubectl, token, with_chart};
use crate::helm::{Failure, NAMESPACE, said, template};
use attempts::ATTEMPTS;

const REP: &str = "diego-operator-rep";

/// A cluster with the chart applied, two nodes, and a Pod of the rep on node-a.
async fn cluster() -> Result<LocalCluster, Failure> {
    let tags = [
        "--set",
        "rep.placementTags={gpu}",
        "--set",
        "rep.optionalPlacementTags={ssd,fast}",
    ];
    let cluster = with_chart(&template(&tags)?).await?;
    apply(&cluster, &world()).await?;
    Ok(cluster)
}

fn cell(node: &str) -> String {
    format!(
        r#"{{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell", "metadata": {{"name": "{node}"}},
        "spec": {{"zone": "z1", "executor": "Pods", "nodeName": "{node}", "placementTags": ["gpu"], "optionalPlacementTags": ["fast", "ssd"], "capacity": {{"memory": "1Gi", "disk": "1Gi", "containers": 10}}}}}}"#
    )
}

fn lease(name: &str, namespace: &str) -> String {
    format!(
        r#"{{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {{"name": "{name}", "namespace": "{namespace}"}}, "spec": {{"holderIdentity": "somebody", "leaseDurationSeconds": 5}}}}"#
    )
}

/// What there is to attack.
fn world() -> String {
    let node = |name: &str| {
        format!(r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}}}}"#)
    };
    let pod = |name: &str, namespace: &str, account: &str, node: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "{namespace}"}},
            "spec": {{"serviceAccountName": "{account}", "nodeName": "{node}", "containers": [{{"name": "a", "image": "a"}}]}}}}"#
        )
    };
    let kind = |kind: &str, name: &str, spec: &str| {
        format!(
            r#"{{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "{kind}", "metadata": {{"name": "{name}", "namespace": "default"}}, "spec": {spec}}}"#
        )
    };
    let template = r#""template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}"#;
    [
        node("node-a"),
        node("node-b"),
        pod("rep-a", NAMESPACE, REP, "node-a"),
        pod("work", "default", "default", "node-b"),
        r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret", "namespace": "default"}}"#.into(),
        kind("DesiredLRP", "web", &format!(r#"{{"instances": 1, {template}}}"#)),
        kind("Task", "web", &format!("{{{template}}}")),
        kind("ActualLRP", "web-0", r#"{"desiredLRPName": "web", "index": 0}"#),
        cell("node-b"),
        lease("cell-node-b", NAMESPACE),
        lease("diego-controller", NAMESPACE),
        lease("presence-canary-1", NAMESPACE),
        lease("cell-node-a", "kube-system"),
    ]
    .join("\n---\n")
}

/// A client with a token, without the administrator's rights.
struct Client<'a> {
    cluster: &'a LocalCluster,
    token: String,
}

impl Client<'_> {
    async fn kubectl(&self, args: &[&str]) -> Result<Result<String, String>, Failure> {
        let token = format!("--token={}", self.token);
        let mut all = vec![token.as_str()];
        all.extend(args);
        let output = self.cluster.kubectl(&all).await?;
        Ok(match output.status.success() {
            true => Ok(said(&output)),
            false => Err(said(&output)),
        })
    }

    /// These words, with the directory of the files for `@`.
    async fn try_it(&self, tried: &str) -> Result<Result<String, String>, Failure> {
        let dir = self.cluster.dir().display().to_string();
        let words: Vec<String> = tried
            .split(' ')
            .map(|word| word.replace('@', &dir))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.kubectl(&words).await
    }

    async fn must(&self, tried: &str) -> Result<String, Failure> {
        let answer = self.try_it(tried).await?;
        answer.map_err(|error| format!("kubectl {tried}: {error}").into())
    }

    async fn must_not(&self, tried: &str, says: &str) -> Result<(), Failure> {
        match self.try_it(tried).await? {
            Ok(said) => Err(format!("kubectl {tried} was allowed: {said}").into()),
            Err(error) if error.contains(says) => Ok(()),
            Err(error) => {
                Err(format!("kubectl {tried} was not refused by '{says}': {error}").into())
            }
        }
    }
}

/// A policy works some moments after it was made.
async fn until_the_policy_works(rep: &Client<'_>) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(60);
    let probe = [
        "annotate",
        "leases",
        "cell-node-b",
        "-n",
        NAMESPACE,
        "--overwrite",
        "probe=1",
    ];
    while rep.kubectl(&probe).await?.is_ok() {
        if Instant::now() > until {
            return Err("the policy has no effect".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_rbac_confines_a_rep_to_its_node() -> Result<(), Failure> {
    let cluster = cluster().await?;
    let pod = ["--bound-object-kind=Pod", "--bound-object-name=rep-a"];
    let rep = Client {
        cluster: &cluster,
        token: token(&cluster, REP, &pod).await?,
    };
    let who = rep.must("auth whoami -o yaml").await?;
    let account = "system:serviceaccount:diego-system:diego-operator-rep";
    assert!(who.contains(account) && who.contains("node-a"), "{who}");
    until_the_policy_works(&rep).await?;
    let unnamed =
        lease("x", NAMESPACE).replace(r#""name": "x""#, r#""generateName": "cell-node-""#);
    for (name, content) in [
        ("own-cell", cell("node-a")),
        (
            "process-cell",
            cell("node-a").replace(r#""Pods", "nodeName": "node-a""#, r#""Process""#),
        ),
        ("own-lease", lease("cell-node-a", NAMESPACE)),
        (
            "finalized-lease",
            lease("cell-node-a", NAMESPACE).replace(
                r#""namespace""#,
                r#""finalizers": ["example.com/never"], "namespace""#,
            ),
        ),
        ("other-lease", lease("cell-node-b", NAMESPACE)),
        ("missing-lease", lease("cell-node-c", NAMESPACE)),
        ("missing-cell", cell("node-c")),
        ("elsewhere", lease("cell-node-a", "kube-system")),
        ("unnamed-lease", unnamed),
    ] {
        std::fs::write(cluster.dir().join(format!("{name}.json")), content)?;
    }

    // Not even its own Cell as another kind of machine, which would draw work that no kubelet sees.
    let process = "apply --server-side -f @/process-cell.json";
    rep.must_not(process, "must have that `nodeName`").await?;

    // Its own work.
    for allowed in [
        "apply --server-side -f @/own-cell.json",
        r#"patch cell node-a --type=merge -p {"spec":{"zone":"z2"}}"#,
        "get cell node-a",
        "create -f @/own-lease.json",
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"spec":{"leaseDurationSeconds":5}}"#,
        "replace -f @/own-lease.json",
        "delete lease cell-node-a -n diego-system",
        "create -f @/own-lease.json",
        "get node node-a",
    ] {
        rep.must(allowed).await?;
    }

    for (tried, says) in ATTEMPTS {
        rep.must_not(tried, says).await?;
    }
    // Nothing of it took effect.
    let left = "leases.coordination.k8s.io";
    let holders = [
        "get",
        left,
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.items[*].spec.holderIdentity}",
    ];
    let somebody = "somebody somebody somebody somebody";
    assert_eq!(kubectl(&cluster, &holders).await?, somebody);

    // What others put there does not keep it from its work.
    let kept = r#"{"metadata": {"finalizers": ["example.com/ours"]}}"#;
    for what in [
        &["cell", "node-a"][..],
        &["lease", "cell-node-a", "-n", NAMESPACE],
    ] {
        let patch = [&["patch"][..], what, &["--type=merge", "-p", kept]].concat();
        kubectl(&cluster, &patch).await?;
    }
    for allowed in [
        r#"patch cell node-a --type=merge -p {"spec":{"zone":"z4"}}"#,
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"spec":{"leaseDurationSeconds":6}}"#,
    ] {
        rep.must(allowed).await?;
    }
    for refused in [
        r#"patch cell node-a --type=merge -p {"metadata":{"finalizers":null}}"#,
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"metadata":{"finalizers":[]}}"#,
    ] {
        rep.must_not(refused, "finalizers").await?;
    }

    // A token of the same account that names no node is good for nothing, and nobody else is held up.
    let unbound = Client {
        cluster: &cluster,
        token: token(&cluster, REP, &[]).await?,
    };
    for tried in [
        r#"patch cell node-a --type=merge -p {"spec":{"zone":"z3"}}"#,
        "delete lease cell-node-a -n diego-system",
    ] {
        unbound.must_not(tried, "must name its node").await?;
    }
    let cordon = r#"{"spec": {"unschedulable": true}}"#;
    kubectl(
        &cluster,
        &["patch", "cell", "node-b", "--type=merge", "-p", cordon],
    )
    .await?;
    kubectl(
        &cluster,
        &["delete", "lease", "cell-node-b", "-n", NAMESPACE],
    )
    .await
    .map(drop)
}
