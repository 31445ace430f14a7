//! Whoever breaks a node has the token of its rep. With it, nothing of another node can be touched: tried one by one against a
//! real API server with RBAC on, under the chart's own roles and admission policy.

use std::time::{Duration, Instant};

use local_cluster::LocalCluster;

use crate::api_server::{apply, kubectl, token, with_chart};
use crate::helm::{Failure, NAMESPACE, render, said, variant};

const REP: &str = "diego-operator-rep";

/// Refused by the admission policy.
const POLICY: &str = "must write its own";
/// Refused for want of a right.
const RIGHTS: &str = "orbidden";

/// What is tried with kubectl, word by word, and what the refusal says. `@` is the directory of the files.
const ATTEMPTS: &[(&str, &str)] = &[
    // Leases: another node's, the leader's, the store's canary, and those of other namespaces.
    (
        r#"patch lease cell-node-b -n diego-system --type=merge -p {"spec":{"holderIdentity":"me"}}"#,
        POLICY,
    ),
    ("replace -f @/other-lease.json", POLICY),
    ("delete lease cell-node-b -n diego-system", POLICY),
    ("delete leases --all -n diego-system", POLICY),
    (
        "delete --raw /apis/coordination.k8s.io/v1/namespaces/diego-system/leases",
        RIGHTS,
    ),
    ("create -f @/missing-lease.json", POLICY),
    ("create -f @/unnamed-lease.json", RIGHTS),
    (
        r#"patch lease diego-controller -n diego-system --type=merge -p {"spec":{"holderIdentity":"me"}}"#,
        POLICY,
    ),
    ("delete lease diego-controller -n diego-system", POLICY),
    (
        r#"patch lease presence-canary-1 -n diego-system --type=merge -p {"spec":{"holderIdentity":"me"}}"#,
        POLICY,
    ),
    ("replace -f @/elsewhere.json", RIGHTS),
    ("get lease cell-node-a -n kube-system", RIGHTS),
    // Cells: another's, and its own made another's.
    (
        r#"patch cell node-b --type=merge -p {"spec":{"evacuate":true}}"#,
        POLICY,
    ),
    ("apply --server-side -f @/missing-cell.json", POLICY),
    ("delete cell node-b", RIGHTS),
    ("delete cell node-a", RIGHTS),
    (
        r#"patch cell node-b --subresource=status --type=merge -p {"status":{"state":"Missing"}}"#,
        RIGHTS,
    ),
    (
        r#"patch cell node-a --subresource=status --type=merge -p {"status":{"state":"Missing"}}"#,
        RIGHTS,
    ),
    (
        r#"patch cell node-a --type=merge -p {"spec":{"nodeName":"node-b"}}"#,
        "must have that `nodeName`",
    ),
    (
        r#"patch cell node-a --type=merge -p {"spec":{"executor":"Process"}}"#,
        "xecutor",
    ),
    // Pods, Secrets, Nodes.
    ("get pods -A", RIGHTS),
    ("get pod work -n default", RIGHTS),
    ("delete pod work -n default", RIGHTS),
    ("run mine --image=a -n default", RIGHTS),
    ("run mine --image=a -n diego-system", RIGHTS),
    (
        r#"patch pod rep-a -n diego-system --type=merge -p {"metadata":{"labels":{"a":"b"}}}"#,
        RIGHTS,
    ),
    ("get secrets -A", RIGHTS),
    ("get secret secret -n default", RIGHTS),
    ("get configmaps -n diego-system", RIGHTS),
    ("get nodes", RIGHTS),
    (
        r#"patch node node-a --type=merge -p {"spec":{"taints":[]}}"#,
        RIGHTS,
    ),
    (
        r#"patch node node-b --type=merge -p {"spec":{"taints":[]}}"#,
        RIGHTS,
    ),
    (
        r#"patch node node-b --subresource=status --type=merge -p {"status":{"phase":"Running"}}"#,
        RIGHTS,
    ),
    ("delete node node-b", RIGHTS),
    // The work.
    ("get actuallrps -A", RIGHTS),
    (
        r#"patch actuallrp web-0 -n default --type=merge -p {"metadata":{"labels":{"a":"b"}}}"#,
        RIGHTS,
    ),
    (
        r#"patch actuallrp web-0 -n default --subresource=status --type=merge -p {"status":{"cellName":"node-a"}}"#,
        RIGHTS,
    ),
    ("delete actuallrp web-0 -n default", RIGHTS),
    ("get tasks.diego.cloudfoundry.org -A", RIGHTS),
    (
        r#"patch tasks.diego.cloudfoundry.org web -n default --subresource=status --type=merge -p {"status":{"cellName":"node-a"}}"#,
        RIGHTS,
    ),
    ("get desiredlrps -A", RIGHTS),
    (
        r#"patch desiredlrp web -n default --type=merge -p {"spec":{"instances":9}}"#,
        RIGHTS,
    ),
    // More power.
    (
        "create token diego-operator-controller -n diego-system",
        RIGHTS,
    ),
    ("create token diego-operator-rep -n diego-system", RIGHTS),
    (
        "delete validatingadmissionpolicy diego-operator-rep-own-node",
        RIGHTS,
    ),
    (
        "create clusterrolebinding mine --clusterrole=cluster-admin --user=me",
        RIGHTS,
    ),
    ("--as=admin get pods", RIGHTS),
];

/// A cluster with the chart applied, two nodes, and a Pod of the rep on node-a.
async fn cluster() -> Result<LocalCluster, Failure> {
    let cluster = with_chart(&render(&variant("default"))?).await?;
    apply(&cluster, &world()).await?;
    Ok(cluster)
}

fn cell(node: &str) -> String {
    format!(
        r#"{{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell", "metadata": {{"name": "{node}"}},
        "spec": {{"zone": "z1", "executor": "Pods", "nodeName": "{node}", "capacity": {{"memory": "1Gi", "disk": "1Gi", "containers": 10}}}}}}"#
    )
}

fn lease(name: &str, namespace: &str) -> String {
    format!(
        r#"{{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {{"name": "{name}", "namespace": "{namespace}"}}, "spec": {{"holderIdentity": "somebody"}}}}"#
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
    // Nothing of it took effect, but for its own Lease, which was deleted with "all".
    rep.must("create -f @/own-lease.json").await?;
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
