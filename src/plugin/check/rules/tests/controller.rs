//! The API server, the kinds, the controllers and who leads.

use super::*;

#[test]
fn the_server_and_the_kinds() {
    breaks(
        |facts| facts.server.version = "v1.31.9".into(),
        "version",
        Mark::Failure,
        &["1.32 is the oldest"],
    );
    breaks(
        |facts| facts.server.version = "odd".into(),
        "version",
        Mark::Warning,
        &["'odd'"],
    );
    breaks(
        |facts| facts.rights.as_mut().unwrap()[0].allowed = false,
        "rights",
        Mark::Warning,
        &[
            "you can't look",
            "you may not list cells",
            "kubectl --context x auth can-i --list",
        ],
    );
    breaks(
        |facts| facts.crds[1].theirs = Ok(None),
        "crds",
        Mark::Failure,
        &["desiredlrps.diego.cloudfoundry.org", "apply --server-side"],
    );
    breaks(
        |facts| facts.crds[0].theirs = Err(no_right()),
        "crds",
        Mark::Warning,
        &[
            "eve lacks the right to list xs.g in namespace n",
            "ask an administrator",
        ],
    );
    let shrunk = |crd: &crate::api::crds::CrdFile| {
        let mut value = serde_json::to_value(&crd.crd).expect("JSON");
        let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["status"]["properties"]
            .as_object_mut()
            .expect("a status")
            .remove("conditions");
        object(value)
    };
    let older = |facts: &mut Facts| facts.crds[0].theirs = Ok(Some(shrunk(&crds::all()[0])));
    breaks(
        older,
        "crds",
        Mark::Failure,
        &["is older", "lacks status.conditions"],
    );
    let newer = |facts: &mut Facts| facts.crds[0].ours = shrunk(&crds::all()[0]);
    breaks(
        newer,
        "crds",
        Mark::Warning,
        &["is newer", "has status.conditions"],
    );
}

#[test]
fn the_controllers() {
    let with = |asked, ready| {
        move |facts: &mut Facts| facts.programs.deployments = Ok(vec![deployment(asked, ready)])
    };
    breaks(
        with(0, 0),
        "deployment",
        Mark::Failure,
        &["scaled to 0", "--replicas 2"],
    );
    breaks(
        with(2, 0),
        "deployment",
        Mark::Failure,
        &["0 of 2", "kubectl --context x logs"],
    );
    breaks(with(2, 1), "deployment", Mark::Warning, &["1 of 2"]);
    breaks(
        with(1, 1),
        "deployment",
        Mark::Warning,
        &["there is one controller"],
    );
    let pulls = |facts: &mut Facts| {
        facts.programs.deployments = Ok(vec![deployment(2, 0)]);
        let pod = json!({
            "metadata": meta("c-1", "controller"),
            "status": { "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ImagePullBackOff" } } }] },
        });
        facts.programs.pods = Ok(vec![object(pod)]);
    };
    breaks(
        pulls,
        "deployment",
        Mark::Failure,
        &["c-1: ImagePullBackOff"],
    );
    let old = |facts: &mut Facts| {
        let deployments = facts.programs.deployments.as_mut().unwrap();
        let labels = deployments[0].metadata.labels.as_mut().unwrap();
        labels.insert("app.kubernetes.io/version".into(), "0.0.7".into());
    };
    breaks(old, "plugin-version", Mark::Warning, &["version 0.0.7"]);
    let two = |facts: &mut Facts| {
        let mut other = deployment(2, 2);
        other.metadata.namespace = Some("other".into());
        facts.programs.deployments.as_mut().unwrap().push(other);
    };
    breaks(
        two,
        "releases",
        Mark::Failure,
        &[
            "2 releases",
            "helm --kube-context x uninstall diego --namespace other",
        ],
    );
}

#[test]
fn one_leads() {
    let with = |leases: Vec<Lease>| move |facts: &mut Facts| facts.leaders = Ok(leases);
    breaks(
        with(vec![]),
        "leader",
        Mark::Failure,
        &[
            "there is no Lease",
            "logs --namespace diego-system deployment/controller",
        ],
    );
    let stale = lease("diego-system", "diego-controller", -40, -40);
    breaks(
        with(vec![stale]),
        "leader",
        Mark::Failure,
        &["diego-controller-holder, which led, renewed", "40s ago"],
    );
    // One that another installation left says nothing of this one.
    let left = lease("other", "diego-controller", -90, -90);
    breaks(
        with(vec![left]),
        "leader",
        Mark::Failure,
        &["there is no Lease"],
    );
    let mut given = lease("diego-system", "diego-controller", -3, -3);
    given.spec.as_mut().unwrap().holder_identity = Some(String::new());
    breaks(
        with(vec![given]),
        "leader",
        Mark::Failure,
        &["was given up 3s ago"],
    );
    let two = vec![
        lease("a", "diego-controller", 0, 0),
        lease("b", "diego-controller", -1, -1),
    ];
    breaks(
        with(two),
        "leader",
        Mark::Failure,
        &["2 controllers lead", "in namespace a", "in namespace b"],
    );
    // Only the API server's clock counts.
    let ahead = lease("diego-system", "diego-controller", -3600, 0);
    breaks(with(vec![ahead]), "leader", Mark::Ok, &[]);
    let behind = lease("diego-system", "diego-controller", 3600, -60);
    breaks(with(vec![behind]), "leader", Mark::Failure, &["60s ago"]);
}
