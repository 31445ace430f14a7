//! What each verb needs, and how it is told that it is missing.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::Plugin;
use crate::support::{Failure, site::START, site::Site};

const GROUP: &str = "diego.cloudfoundry.org";

/// Lets eve do what a ClusterRole says.
async fn bind(site: &Site, name: &str) -> Result<(), Failure> {
    let apply = PatchParams::apply("tests").force();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io" }],
    });
    Api::<ClusterRoleBinding>::all(site.client.clone())
        .patch(name, &apply, &Patch::Apply(&binding))
        .await?;
    Ok(())
}

pub async fn allow(site: &Site, name: &str, rules: Value) -> Result<(), Failure> {
    let apply = PatchParams::apply("tests").force();
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules });
    Api::<ClusterRole>::all(site.client.clone())
        .patch(name, &apply, &Patch::Apply(&role))
        .await?;
    bind(site, name).await
}

/// Waits until the right is there: the API server learns of it a little later.
async fn may(plugin: &Plugin, line: &str) -> Result<(), Failure> {
    crate::support::eventually(line, START, || async {
        (plugin.run(line).await.ok()?.status == 0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_watch_is_told_so_before_anything_is_done() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("cell-1", "z1", &[]).await?;
    let plugin = Plugin::of(&site);
    let rules = json!([
        { "apiGroups": [GROUP], "resources": ["cells"], "verbs": ["get", "list", "patch"] },
        { "apiGroups": [GROUP], "resources": ["actuallrps", "tasks"], "verbs": ["get", "list", "watch"] },
    ]);
    allow(&site, "looks", rules).await?;
    may(&plugin, "distribution --as eve").await?;
    for line in [
        "evacuate cell-1 --timeout 60s --as eve",
        "distribution -w --as eve",
    ] {
        let said = plugin.fails(line, 1).await?;
        assert!(
            said.contains("eve lacks the right to watch cells.diego.cloudfoundry.org"),
            "{line}: {said}"
        );
    }
    let cell = site.cells().get("cell-1").await?;
    assert_eq!(cell.spec.evacuate, None, "nothing was asked for");

    // What the built-in role view has of Events is enough for trace.
    bind(&site, "system:aggregate-to-view").await?;
    crate::support::eventually("Events may be read", START, || async {
        let said = plugin.run("trace cell/cell-1 --as eve").await.ok()?;
        (said.status == 0 && !said.stderr.contains("without its Events")).then_some(())
    })
    .await?;

    let rules = json!([{ "apiGroups": [GROUP], "resources": ["cells"], "verbs": ["watch"] }]);
    allow(&site, "watches", rules).await?;
    may(&plugin, "distribution --as eve").await?;
    let follows = crate::support::eventually("it follows", START, || async {
        let mut follows = plugin.command("distribution -w --as eve").spawn().ok()?;
        let stdout = follows.stdout.take()?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
        lines.next_line().await.ok()??;
        Some((follows, lines))
    })
    .await?;
    // The right goes while it is used: the next watch is refused, and that ends it.
    Api::<ClusterRoleBinding>::all(site.client.clone())
        .delete("watches", &DeleteParams::default())
        .await?;
    let (follows, lines) = follows;
    drop(lines);
    let ended = tokio::time::timeout(START, follows.wait_with_output()).await??;
    let stderr = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("lacks the right to watch cells"),
        "{stderr}"
    );
    Ok(())
}
