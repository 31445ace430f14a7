//! What the holder of a rep's token tries, and what each refusal says.

/// Refused by the admission policy.
const POLICY: &str = "must write its own";
/// Refused for want of a right.
const RIGHTS: &str = "orbidden";
const TAGS: &str = "must have the placement tags of the chart";
const DURATION: &str = "leaseDurationSeconds from 1 to 3600";

/// What is tried with kubectl, word by word, and what the refusal says. `@` is the directory of the files.
pub const ATTEMPTS: &[(&str, &str)] = &[
    // Leases: another node's, the leader's, the store's canary, and those of other namespaces.
    (
        r#"patch lease cell-node-b -n diego-system --type=merge -p {"spec":{"holderIdentity":"me"}}"#,
        POLICY,
    ),
    ("replace -f @/other-lease.json", POLICY),
    ("delete lease cell-node-b -n diego-system", POLICY),
    ("delete leases --all -n diego-system", RIGHTS),
    ("get leases -n diego-system", RIGHTS),
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
    // Work that the chart's tags keep away.
    (
        r#"patch cell node-a --type=merge -p {"spec":{"placementTags":["other"]}}"#,
        TAGS,
    ),
    (
        r#"patch cell node-a --type=merge -p {"spec":{"placementTags":null}}"#,
        TAGS,
    ),
    (
        r#"patch cell node-a --type=merge -p {"spec":{"optionalPlacementTags":["ssd","other"]}}"#,
        TAGS,
    ),
    (
        r#"patch cell node-a --type=merge -p {"spec":{"optionalPlacementTags":[]}}"#,
        TAGS,
    ),
    // Cells and Leases that nobody could remove, or that end with something else.
    (
        r#"patch cell node-a --type=merge -p {"metadata":{"finalizers":["example.com/never"]}}"#,
        "finalizers",
    ),
    (
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"metadata":{"finalizers":["example.com/never"]}}"#,
        "finalizers",
    ),
    (
        r#"patch cell node-a --type=merge -p {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-b","uid":"1"}]}}"#,
        "ownerReferences",
    ),
    (
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-b","uid":"1"}]}}"#,
        "ownerReferences",
    ),
    ("replace -f @/finalized-lease.json", "finalizers"),
    // A time to live that does not exist.
    (
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"spec":{"leaseDurationSeconds":3601}}"#,
        DURATION,
    ),
    (
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"spec":{"leaseDurationSeconds":0}}"#,
        "eater than 0",
    ),
    (
        r#"patch lease cell-node-a -n diego-system --type=merge -p {"spec":{"leaseDurationSeconds":null}}"#,
        DURATION,
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
