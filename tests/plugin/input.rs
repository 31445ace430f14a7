//! Bad input: each is told with what is wrong and the remedy, on stderr, with an exit status.

use local_cluster::{LocalCluster, Options};

use crate::Plugin;
use crate::support::{Failure, objects as make, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_the_remedy() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("cell-1", "z1", &[]).await?;
    site.desire(&make::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;
    let plugin = Plugin::of(&site);
    for (line, status, words) in [
        // Rights that are missing.
        (
            "top --as eve",
            1,
            "eve lacks the right to list cells.diego.cloudfoundry.org",
        ),
        ("distribution --as eve", 1, "-cell-admin (docs/install.md)"),
        (
            "cordon cell-1 --as eve",
            1,
            "lacks the right to get cells.diego.cloudfoundry.org",
        ),
        (
            "retire web-0 --as eve",
            1,
            "lacks the right to get actuallrps.diego.cloudfoundry.org in namespace default",
        ),
        (
            "cancel t -n prod --as eve",
            1,
            "lacks the right to get tasks.diego.cloudfoundry.org in namespace prod",
        ),
        // Objects that are not there.
        ("cordon cell1", 1, "there is no Cell cell1; is it cell-1?"),
        (
            "evacuate zzz",
            1,
            "there is no Cell zzz; kubectl get cells.diego.cloudfoundry.org shows what there is",
        ),
        (
            "top cell-1 cell-9",
            1,
            "there is no Cell cell-9; is it cell-1?",
        ),
        (
            "retire web-7",
            1,
            "there is no ActualLRP web-7 in namespace default; is it web-0?",
        ),
        ("retire web-0 web-7", 1, "there is no ActualLRP web-7"),
        (
            "retire web-0 -n prod",
            1,
            "there is no ActualLRP web-0 in namespace prod; choose another namespace with -n",
        ),
        (
            "trace task/none",
            1,
            "there is no Task none in namespace default",
        ),
        // Words that do not go together.
        ("retire web-0 -A", 2, "choose the namespace with -n"),
        (
            "retire web-0 -A --kubeconfig /none/here",
            2,
            "choose the namespace with -n",
        ),
        ("distribution -w -o json", 2, "kubectl get -w -o json"),
        ("cordon task/a", 2, "write NAME or cell/NAME"),
        (
            "trace web",
            2,
            "write cell/NAME, actuallrp/NAME or task/NAME",
        ),
        (
            "evacuate cell-1 --timeout soon",
            2,
            "write a number and s, m or h",
        ),
        // The cluster.
        (
            "top --context other",
            1,
            "the Kubernetes configuration can't be used",
        ),
        (
            "top --kubeconfig /none/here",
            1,
            "set --kubeconfig or $KUBECONFIG to a valid file",
        ),
    ] {
        let said = plugin.fails(line, status).await?;
        assert!(said.contains(words), "{line}: {words}: {said}");
        assert!(said.starts_with("error: "), "{line}: {said}");
    }
    // What is to be pasted means the same cluster.
    let path = site.cluster.kubeconfig().display().to_string();
    for (line, command) in [
        ("cordon zzz", "get cells.diego.cloudfoundry.org shows"),
        ("cancel zzz", "get tasks.diego.cloudfoundry.org -A shows"),
    ] {
        let said = plugin
            .fails(&format!("{line} --kubeconfig {path}"), 1)
            .await?;
        let whole = format!("kubectl --kubeconfig {path} {command}");
        assert!(said.contains(&whole), "{line}: {said}");
    }
    for line in ["check -o name", "top -o short"] {
        let said = plugin.fails(line, 2).await?;
        assert!(said.contains("take -o table"), "{line}: {said}");
    }
    let cell = site.cells().get("cell-1").await?;
    assert_eq!(cell.spec.unschedulable, None, "nothing was done");

    site.cluster.stop_apiserver().await;
    let said = plugin.fails("top", 1).await?;
    for words in [
        &site.cluster.server_url(),
        "does not answer",
        "check --kubeconfig and --context",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_crds_is_told_as_such() -> Result<(), Failure> {
    let options = Options {
        garbage_collection: false,
        ..Options::default()
    };
    let cluster = LocalCluster::start(options).await?;
    let plugin = Plugin::at(cluster.kubeconfig());
    for line in [
        "top",
        "distribution",
        "recoveries",
        "cordon a",
        "retire web-0",
        "trace cell/a",
    ] {
        let said = plugin.fails(line, 1).await?;
        assert!(
            said.contains("Diego is not installed there; install it (docs/install.md)"),
            "{line}: {said}"
        );
    }
    Ok(())
}
