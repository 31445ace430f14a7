//! Little is needed, and what is missing is told.

use local_cluster::{Options, User};

use super::*;

fn user(name: &str) -> Options {
    Options {
        users: vec![User {
            name: name.into(),
            groups: Vec::new(),
        }],
        ..Options::default()
    }
}

/// Binds a user to a ClusterRole of these rules.
async fn allow(site: &Site, user: &str, rules: Value) -> Result<(), Failure> {
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
    let name = format!("test-{user}");
    let apply = PatchParams::apply("tests").force();
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules });
    Api::<ClusterRole>::all(site.client.clone())
        .patch(&name, &apply, &Patch::Apply(&role))
        .await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
    });
    Api::<ClusterRoleBinding>::all(site.client.clone())
        .patch(&name, &apply, &Patch::Apply(&binding))
        .await?;
    Ok(())
}

const DIEGO: &str = "diego.cloudfoundry.org";

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_needs_its_own_cell_and_its_node_and_leaves_when_it_is_empty() -> Result<(), Failure>
{
    let mut site = Site::start_with(user("rep-n1")).await?;
    for name in ["n1", "n2"] {
        make_node(&site, name, json!({})).await?;
    }
    let rules = json!([
        { "apiGroups": [DIEGO], "resources": ["cells"], "resourceNames": ["n1"], "verbs": ["get", "list", "watch", "patch"] },
        // By server-side apply, which makes it where it is not there.
        { "apiGroups": [DIEGO], "resources": ["cells"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] },
    ]);
    allow(&site, "rep-n1", rules).await?;
    let kubeconfig = site.cluster.kubeconfig_for("rep-n1")?.display().to_string();
    site.start_controller(&[]).await?;
    let _rep = site.node_rep("n1", &["--kubeconfig", &kubeconfig]).await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    site.desire(&asks("web", 2, "1", json!({}))).await?;
    for name in ["web-0", "web-1"] {
        assert_eq!(placed(&site, name).await?, "n1");
    }
    let _other = site.node_rep("n2", &[]).await?;
    ready_is(&site, "n2", "True", "PresenceHeld").await?;
    let evacuate = Patch::Merge(json!({ "spec": { "evacuate": true } }));
    site.cells()
        .patch("n1", &PatchParams::default(), &evacuate)
        .await?;
    site.cell_state("n1", CellState::Evacuated).await?;
    for name in ["web-0", "web-1"] {
        let status = site.actual().get(name).await?.status.unwrap_or_default();
        let left = status.named().any(|one| one.cell == "n1");
        assert!(!left, "{name} was left behind: {status:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_says_what_is_wrong_with_its_node() -> Result<(), Failure> {
    let site = Site::start_with(user("rep-n1")).await?;
    let site = &site;
    let ends = |extra: Vec<String>| async move {
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        match site.node_rep("n1", &extra).await {
            Ok(_) => Err(Failure::from("it runs")),
            Err(error) => Ok(error.to_string()),
        }
    };
    let said = ends(Vec::new()).await?;
    assert!(
        said.contains("there is no Node \"n1\"") && said.contains("--node-name"),
        "{said}"
    );
    make_node(site, "n1", json!({})).await?;
    let cells = json!([{ "apiGroups": [DIEGO], "resources": ["cells"], "verbs": ["*"] }]);
    allow(site, "rep-n1", cells).await?;
    let kubeconfig = site.cluster.kubeconfig_for("rep-n1")?.display().to_string();
    let said = ends(vec!["--kubeconfig".into(), kubeconfig]).await?;
    assert!(said.contains("resources: [nodes], verbs: [get]"), "{said}");
    let said = ends(vec!["--boot-id-file".into(), "/nowhere".into()]).await?;
    assert!(said.contains("--boot-id-file /nowhere"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_nodes_only_cells_on_nodes_wait() -> Result<(), Failure> {
    let mut site = Site::start_with(user("controller")).await?;
    make_node(&site, "n1", json!({})).await?;
    let rules = json!([
        { "apiGroups": [DIEGO], "resources": ["*"], "verbs": ["*"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["*"] },
        { "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get", "list"] },
    ]);
    allow(&site, "controller", rules).await?;
    let kubeconfig = site
        .cluster
        .kubeconfig_for("controller")?
        .display()
        .to_string();
    site.start_controller(&["--kubeconfig", &kubeconfig])
        .await?;
    let _rep = site.node_rep("n1", &[]).await?;
    ready_is(&site, "n1", "False", "NodeNotRead").await?;
    site.desire(&asks("pods", 1, "1", json!({}))).await?;
    let words = "1 node(s) could not be read by the controller";
    waits(&site, "pods-0", |error| error.ends_with(words)).await?;
    // All others work as ever.
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("processes", 1)).await?;
    site.running("processes", 1, |cell| cell == "a").await?;
    Ok(())
}
