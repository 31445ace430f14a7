//! What users and surroundings get wrong: each is told in words on the object, the rest works on, and it heals by itself.

use crate::{
    installed::{Installed, NAMESPACE, RELEASE, SOON},
    stream::run,
    support::Failure,
};
use std::fs;

/// One container that runs on, for a DesiredLRP of `instances` in `namespace`, with more of the Pod's spec.
fn lrp(namespace: &str, name: &str, instances: u32, more: &str) -> String {
    let command = "command: [sleep, '1000']";
    lrp_of(namespace, name, instances, more, command)
}

fn lrp_of(namespace: &str, name: &str, instances: u32, more: &str, container: &str) -> String {
    format!(
        "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  instances: {instances}
  template:
    spec:
      terminationGracePeriodSeconds: 0
      {more}
      containers:
      - name: main
        image: test-app:dev
        {container}
---"
    )
}

fn task(namespace: &str, name: &str, image: &str, script: &str) -> String {
    format!(
        "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: Task
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ttlSecondsAfterFinished: 3600
  template: {{spec: {{containers: [{{name: main, image: '{image}', command: [sh, -c, '{script}']}}]}}}}
---"
    )
}

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: team-label}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policy}}
  validations: [{expression: "has(object.metadata.labels.team)", message: every Pod needs the label team}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: team-label}
spec: {policyName: team-label, validationActions: [Deny]}
---"#;

const ON_NODE_2: &str = "nodeSelector: {kubernetes.io/hostname: node-2}";
const TOLERANT: &str = "nodeSelector: {kubernetes.io/hostname: node-2}
      tolerations: [{key: team, value: db}]";
const IN_ZONE_1: &str = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
        {matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [z1]}]}]}}}";
const EATS: &str = "command: [sh, -c, 'x=a; while true; do x=$x$x; done']
        resources: {limits: {memory: 20Mi}}";
const EXITS: &str = "command: [sh, -c, 'echo no database >/dev/termination-log; exit 3']";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_and_heals_and_the_rest_works_on() -> Result<(), Failure> {
    let site = Installed::start(2, &[]).await?;
    let bad = site.helm_release(&["upgrade", "--set controler.replicas=1"]);
    let bad = bad
        .await
        .expect_err("a value that is not there")
        .to_string();
    assert!(bad.contains("controler"), "{bad}");

    site.apply(&lrp("default", "kept", 2, "")).await?;
    site.running("default", "kept", 2).await?;
    let kept = site.cells_of("default", "kept").await?;
    assert!(
        kept.contains("node-1 ") && kept.contains("node-2 "),
        "{kept}"
    );

    // Refused by the API server, each in its way.
    for (namespace, what) in [
        (
            "strict",
            "label namespace strict pod-security.kubernetes.io/enforce=restricted",
        ),
        ("small", "create quota few -n small --hard=pods=2"),
        ("policy", "get namespace policy"),
    ] {
        site.kubectl(&format!("create namespace {namespace}"))
            .await?;
        site.kubectl(what).await?;
    }
    site.apply(POLICY).await?;
    let probe = "run probe --image=test-app:dev -n policy --dry-run=server";
    site.until(probe, SOON, |said| {
        said.contains("every Pod needs the label")
    })
    .await?;
    let refused = [
        (
            "strict",
            "root",
            "violates PodSecurity \"restricted:latest\"",
        ),
        (
            "small",
            "four",
            "exceeded quota: few, requested: pods=1, used: pods=2",
        ),
        ("policy", "noteam", "every Pod needs the label team"),
        (
            "default",
            "nofield",
            "spec.dnsPolicy: Unsupported value: \"Sometimes\"",
        ),
        (
            "default",
            "nowhere",
            "2 node(s) didn't match Pod's node affinity/selector",
        ),
    ];
    let mut all = String::new();
    for (namespace, name, _) in refused {
        let more = match name {
            "nofield" => "dnsPolicy: Sometimes",
            "nowhere" => "nodeSelector: {disk: ssd}",
            _ => "",
        };
        all.push_str(&lrp(namespace, name, 4, more));
    }
    // What ends by itself, and what never begins.
    all.push_str(&lrp_of("default", "oom", 1, "", EATS));
    all.push_str(&lrp_of("default", "exits", 1, "", EXITS));
    all.push_str(&lrp("default", "noimage", 1, "").replace("test-app:dev", "localhost:1/none:1"));
    all.push_str(&task("strict", "root", "test-app:dev", "true"));
    all.push_str(&task("default", "noimage", "localhost:1/none:1", "true"));
    let script = "echo disk full >/dev/termination-log; exit 7";
    all.push_str(&task("default", "fails", "test-app:dev", script));
    all.push_str(&lrp("default", "zone", 2, IN_ZONE_1));
    site.apply(&all).await?;
    for (namespace, name, words) in refused {
        let error =
            format!("get alrp -n {namespace} -o jsonpath={{.items[*].status.placementError}}");
        site.until(&error, SOON, |error| error.contains(words))
            .await?;
        let condition =
            format!("get dlrp {name} -n {namespace} -o jsonpath={{.status.conditions[0].message}}");
        let begins = match name {
            "four" => "2 of 4 instances run; another can't be started: ",
            _ => "0 of 4 instances run; another can't be started: ",
        };
        site.until(&condition, SOON, |said| {
            said.starts_with(begins) && said.contains(words)
        })
        .await?;
        if name != "nowhere" {
            site.event(namespace, "ActualLRPRejected", words).await?;
        }
    }
    site.running("default", "zone", 2).await?;
    let zone = site.cells_of("default", "zone").await?;
    assert!(!zone.contains("node-2 "), "{zone}");
    for (name, words) in [
        (
            "oom",
            "OOMKilled: exited with status 137, killed by signal 9 (SIGKILL)",
        ),
        ("exits", "exited with status 3: no database"),
        (
            "noimage",
            "ImagePullBackOff: Back-off pulling image \"localhost:1/none:1\"",
        ),
    ] {
        let reason = format!("get alrp {name}-0 -o jsonpath={{.status.crashReason}}");
        site.until(&reason, SOON, |reason| reason.starts_with(words))
            .await?;
        site.event("default", "ActualLRPCrashed", words).await?;
    }
    for (namespace, name, field, words) in [
        ("strict", "root", "rejectionReason", "violates PodSecurity"),
        ("default", "noimage", "failureReason", "ImagePullBackOff"),
        (
            "default",
            "fails",
            "failureReason",
            "exited with status 7: disk full",
        ),
    ] {
        let status = format!(
            "get dtask {name} -n {namespace} -o jsonpath={{.status.failed}}:{{.status.{field}}}"
        );
        site.until(&status, SOON, |status| {
            status.starts_with("true:") && status.contains(words)
        })
        .await?;
    }
    site.event("strict", "TaskRejected", "violates PodSecurity")
        .await?;

    // It heals by itself.
    site.kubectl(r#"patch quota few -n small -p {"spec":{"hard":{"pods":"4"}}}"#)
        .await?;
    site.kubectl("label namespace strict pod-security.kubernetes.io/enforce=baseline --overwrite")
        .await?;
    site.kubectl("delete validatingadmissionpolicybinding team-label")
        .await?;
    site.nodes_say_no().await?;
    for (namespace, name) in [("small", "four"), ("strict", "root"), ("policy", "noteam")] {
        site.running(namespace, name, 4).await?;
    }
    site.old_crds().await?;
    site.frozen_kubelet().await?;

    // All the while: no hot loop, and what was right was left alone.
    let crashes = site
        .kubectl("get alrp noimage-0 -o jsonpath={.status.crashCount}")
        .await?;
    assert!((1..=6).contains(&crashes.parse::<u32>()?), "{crashes}");
    assert_eq!(site.cells_of("default", "kept").await?, kept);
    Ok(())
}

impl Installed {
    async fn running(&self, namespace: &str, name: &str, count: u32) -> Result<(), Failure> {
        let ask = format!("get dlrp {name} -n {namespace} -o jsonpath={{.status.running}}");
        let count = count.to_string();
        self.until(&ask, SOON, |running| running == count)
            .await
            .map(drop)
    }

    /// Where its instances are, each as `CELL STATE GUID,`.
    async fn cells_of(&self, namespace: &str, name: &str) -> Result<String, Failure> {
        self.kubectl(&format!(
            r#"get alrp -n {namespace} -o jsonpath={{range.items[?(@.spec.desiredLRPName=="{name}")]}}{{.status.cellName}}{{"\u0020"}}{{.status.state}}{{"\u0020"}}{{.status.instanceGuid}},{{end}}"#
        ))
        .await
    }

    async fn event(&self, namespace: &str, reason: &str, words: &str) -> Result<(), Failure> {
        let ask = format!(
            "get events -n {namespace} --field-selector reason={reason} -o jsonpath={{.items[*].message}}"
        );
        self.until(&ask, SOON, |said| said.contains(words))
            .await
            .map(drop)
    }

    /// A node that is cordoned, then tainted.
    async fn nodes_say_no(&self) -> Result<(), Failure> {
        let ready = "get cell node-2 --no-headers";
        let error =
            |name: &str| format!("get alrp {name}-0 -o jsonpath={{.status.placementError}}");
        self.kubectl("cordon node-2").await?;
        self.until(ready, SOON, |cell| {
            columns(cell).contains("True NodeUnschedulable")
        })
        .await?;
        self.apply(&lrp("default", "cordoned", 1, ON_NODE_2))
            .await?;
        let words = "1 node(s) were unschedulable";
        self.until(&error("cordoned"), SOON, |error| error.contains(words))
            .await?;
        self.kubectl("taint node node-2 team=db:NoSchedule").await?;
        self.kubectl("uncordon node-2").await?;
        let words = "1 node(s) had untolerated taint {team: db}";
        self.until(&error("cordoned"), SOON, |error| error.contains(words))
            .await?;
        self.apply(&lrp("default", "tolerant", 1, TOLERANT)).await?;
        self.running("default", "tolerant", 1).await?;
        self.kubectl("taint node node-2 team-").await?;
        self.running("default", "cordoned", 1).await
    }

    /// CRDs of an older version: the controllers that run go on, a new one says what to do, and that helps.
    async fn old_crds(&self) -> Result<(), Failure> {
        let crd = self
            .kubectl("get crd actuallrps.diego.cloudfoundry.org -o json")
            .await?;
        let mut crd: serde_json::Value = serde_json::from_str(&crd)?;
        let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
        let fields = crd
            .pointer_mut(status)
            .and_then(|fields| fields.as_object_mut());
        fields
            .ok_or("no status")?
            .remove("crashReason")
            .ok_or("no crashReason")?;
        let old = self.dir().join("old-crd.json");
        fs::write(&old, crd.to_string())?;
        self.kubectl(&format!("replace -f {}", old.display()))
            .await?;
        let controllers = format!("deployment/{RELEASE}-controller -n {NAMESPACE}");
        self.kubectl(&format!("rollout restart {controllers}"))
            .await?;
        let logs =
            format!("logs -n {NAMESPACE} -l app.kubernetes.io/component=controller --tail=1");
        let said = self
            .until(&logs, SOON, |log| log.contains("older than this program"))
            .await?;
        let said = said
            .lines()
            .find(|line| line.starts_with("error: "))
            .unwrap_or_default();
        assert!(
            said.contains("the CRD actuallrps.diego.cloudfoundry.org"),
            "{said}"
        );
        assert!(said.contains("lacks status.crashReason"), "{said}");
        let (_, leader) = self.leader().await?;
        assert!(!leader.is_empty());
        let remedy = said.split('`').nth(1).ok_or("no command in the message")?;
        let diego = env!("CARGO_BIN_EXE_diego");
        let (done, told) = run(self, &remedy.replacen("diego", diego, 1)).await?;
        assert!(done, "{remedy}: {told}");
        self.kubectl(&format!("rollout status {controllers} --timeout=90s"))
            .await
            .map(drop)
    }

    /// A kubelet that does nothing any more, beside a rep that does.
    async fn frozen_kubelet(&self) -> Result<(), Failure> {
        let signal = |name: &str| {
            format!(
                "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" != kubelet ] || kill -{name} ${{p#/proc/}}; done 2>/dev/null"
            )
        };
        let node = self.node("node-2")?;
        node.exec(&["sh", "-c", &signal("STOP")]).await?;
        let cell = "get cell node-2 --no-headers";
        self.until(cell, SOON, |cell| {
            columns(cell).contains("False NodeNotReady")
        })
        .await?;
        let state = "get cell node-2 -o jsonpath={.status.state}";
        assert_eq!(self.kubectl(state).await?, "Present");
        self.apply(&lrp("default", "late", 3, "")).await?;
        self.running("default", "late", 3).await?;
        let late = self.cells_of("default", "late").await?;
        assert!(!late.contains("node-2 "), "{late}");
        node.exec(&["sh", "-c", &signal("CONT")]).await?;
        self.cells_ready(2).await
    }
}

/// The columns of a line, one space apart.
fn columns(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
