//! Faults of an installation, one after the other.

use std::time::{Duration, Instant};

use diego_operator::api::CellState;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use super::installed::{Installed, SPACE, deployment, namespace};
use super::{Found, finds};
use crate::Plugin;
use crate::rights::allow;
use crate::support::{Failure, eventually, objects as make, site::START};

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_is_well_is_told_as_such_and_each_fault_is_found()
-> Result<(), Failure> {
    let mut installed = Installed::start().await?;
    installed.site.desire(&make::sleepers("web", 3)).await?;
    installed.site.running("web", 3, |_| true).await?;
    let plugin = Plugin::of(&installed.site);

    // Metrics that nobody scrapes.
    let found = Found::by(&plugin, "").await?;
    assert_eq!(found.status, 0, "that is a warning");
    assert!(found.has(
        "monitors",
        "warning",
        &[
            "not scraped",
            "helm upgrade diego",
            "--set monitoring.podAnnotations=true"
        ]
    ));
    installed.monitors().await?;
    finds(&plugin, "", "monitors", "ok", &[]).await?;

    // All is well: people are told in lines, and short has nothing to say.
    let said = plugin.run("check").await?;
    assert_eq!(said.status, 0);
    let text = &said.stdout;
    as_documented("kubectl diego check", &format!("{text}{}", said.stderr))?;
    assert!(!text.contains('‼') && !text.contains('×'), "{text}");
    assert!(said.stderr.contains("all is well"), "{}", said.stderr);
    let short = plugin.run("check -o short").await?;
    assert_eq!((short.status, &*short.stdout), (0, ""));

    two_releases(&plugin, &installed).await?;
    no_rights(&plugin, &installed).await?;
    store_away(&plugin, &installed).await?;
    guard(&plugin, &installed).await?;
    flapping(&plugin, &installed).await?;
    no_leader(&plugin, &mut installed).await
}

/// The document shows what is printed: but for names that are made anew each time.
fn as_documented(line: &str, printed: &str) -> Result<(), Failure> {
    let masked = |text: &str| {
        let word = |word: &str| match word {
            word if word.starts_with("https://") => "URL".to_owned(),
            word if word.contains('_') && word.contains('-') => "HOLDER".into(),
            word => word.into(),
        };
        let lines = text
            .lines()
            .map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plugin.md"))?;
    let head = format!("$ {line}\n");
    let (_, rest) = page
        .split_once(&head)
        .ok_or(format!("docs/plugin.md does not show {line}"))?;
    let (shown, _) = rest.split_once("```").ok_or("a block without an end")?;
    assert_eq!(masked(shown), masked(printed), "docs/plugin.md: {line}");
    Ok(())
}

async fn two_releases(plugin: &Plugin, installed: &Installed) -> Result<(), Failure> {
    let site = &installed.site;
    namespace(site, "other").await?;
    deployment(site, "other", "second", 2).await?;
    let remedy = [
        "2 releases",
        "diego in namespace diego-system",
        "helm uninstall second --namespace other",
    ];
    finds(plugin, "", "releases", "failure", &remedy).await?;
    // Its controller leads by a Lease of its own.
    let flags = ["--leader-elect", "--namespace", "other"];
    let controller = site.another_controller("second", &flags).await?;
    let both = [
        "2 controllers lead",
        "in namespace other",
        "kubectl get leases --all-namespaces",
    ];
    finds(plugin, "", "leader", "failure", &both).await?;
    // Who looks at one of them alone does not see that.
    let found = Found::by(plugin, &format!("--diego-namespace {SPACE}")).await?;
    assert!(found.has("leader", "ok", &[SPACE]));
    controller.process.kill();
    controller.process.wait().await;
    let api =
        Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(site.client.clone(), "other");
    api.delete("second-diego-operator-controller", &Default::default())
        .await?;
    finds(plugin, "", "releases", "ok", &["one installation"]).await?;
    finds(plugin, "", "leader", "ok", &[]).await.map(drop)
}

/// What can't be looked at for want of a right is named, and is no failure.
async fn no_rights(plugin: &Plugin, installed: &Installed) -> Result<(), Failure> {
    let found = Found::by(plugin, "--as eve").await?;
    assert_eq!(found.status, 0);
    for (check, right) in [
        ("rights", "you may not list cells.diego.cloudfoundry.org"),
        (
            "crds",
            "eve lacks the right to get customresourcedefinitions.apiextensions.k8s.io",
        ),
        (
            "deployment",
            "eve lacks the right to list deployments.apps in namespace diego-system",
        ),
        (
            "leader",
            "eve lacks the right to list leases.coordination.k8s.io in namespace diego-system",
        ),
        ("daemon-set", "eve lacks the right to list daemonsets.apps"),
        (
            "cells",
            "eve lacks the right to list cells.diego.cloudfoundry.org (they are cluster-wide)",
        ),
        (
            "instances",
            "eve lacks the right to list actuallrps.diego.cloudfoundry.org in all namespaces",
        ),
        (
            "clocks",
            "leases.coordination.k8s.io in namespace kube-node-lease",
        ),
    ] {
        assert!(found.has(check, "warning", &[right]), "{check}: {right}");
    }
    let narrow = Found::by(plugin, "--as eve -n prod").await?;
    assert!(narrow.has(
        "tasks",
        "warning",
        &["tasks.diego.cloudfoundry.org in namespace prod"]
    ));
    // The rights that the document names are all that it takes, besides those to see Cells and work.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plugin.md"))?;
    let (_, rest) = page.split_once("```yaml\n").ok_or("there is no role")?;
    let (role, _) = rest.split_once("```").ok_or("a block without an end")?;
    let role: Value = serde_saphyr::from_str(role)?;
    allow(&installed.site, "checks", role["rules"].clone()).await?;
    let resources = ["cells", "actuallrps", "tasks"];
    let looks = json!([{ "apiGroups": ["diego.cloudfoundry.org"], "resources": resources, "verbs": ["list", "watch"] }]);
    allow(&installed.site, "looks", looks).await?;
    eventually("eve sees everything", START, || async {
        let found = Found::by(plugin, "--as eve").await.ok()?;
        (!format!("{:?}", found.all).contains("lacks the right")).then_some(())
    })
    .await?;
    let found = Found::by(plugin, "--as eve").await?;
    assert!(found.has("presence-store", "ok", &[]));
    assert!(found.has("rights", "warning", &["you can't cancel Tasks"]));
    Ok(())
}

async fn store_away(plugin: &Plugin, installed: &Installed) -> Result<(), Failure> {
    installed.store.cut();
    let away = [
        "can't be reached",
        "kubectl logs --namespace diego-system controller-1",
        "DiegoPresenceStoreUnreachable.md",
    ];
    finds(plugin, "", "presence-store", "failure", &away).await?;
    installed.store.mend();
    finds(plugin, "", "presence-store", "ok", &[]).await?;
    // The cells that went meanwhile have a TTL more to show themselves.
    finds(plugin, "", "cells", "ok", &["3 of 3"])
        .await
        .map(drop)
}

async fn flapping(plugin: &Plugin, installed: &Installed) -> Result<(), Failure> {
    let site = &installed.site;
    for _ in 0..2 {
        site.rep("cell-3").process.pause();
        site.cell_state("cell-3", CellState::Missing).await?;
        let lost = [
            "1 Cell is lost: cell-3 for ",
            "kubectl diego trace cell/cell-3",
            "DiegoCellsMissing.md",
        ];
        finds(plugin, "", "missing", "warning", &lost).await?;
        site.rep("cell-3").process.resume();
        site.cell_state("cell-3", CellState::Present).await?;
    }
    let words = [
        "1 Cell is flapping: cell-3 (lost 2 times, no new work for ",
        "operating.md#cells-that-flap",
    ];
    finds(plugin, "", "flapping", "warning", &words)
        .await
        .map(drop)
}

async fn guard(plugin: &Plugin, installed: &Installed) -> Result<(), Failure> {
    let cells = ["cell-1", "cell-2", "cell-3"];
    for cell in cells {
        installed.site.rep(cell).process.pause();
    }
    let held = [
        "the mass-loss guard holds: 3 Cells are silent: cell-1, cell-2, cell-3",
        "kubectl annotate cell.diego.cloudfoundry.org cell-1 diego.cloudfoundry.org/confirm-loss=true",
        "DiegoCellLossesHeld.md",
    ];
    finds(plugin, "", "guard", "failure", &held).await?;
    // --wait is for nothing while it lasts, and ends as soon as it is over.
    let began = Instant::now();
    let said = plugin.run("check -o short --wait 3s").await?;
    assert_eq!(said.status, 1);
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(
        said.stderr.contains("waiting until all is well"),
        "{}",
        said.stderr
    );
    // What was waited for stands before.
    let last = said.stderr.lines().last().unwrap_or_default();
    as_documented(
        "kubectl diego check -o short",
        &format!("{}{last}\n", said.stdout),
    )?;
    assert!(
        said.stdout.contains("× the mass-loss guard holds"),
        "{}",
        said.stdout
    );
    assert!(!said.stdout.contains('√'), "{}", said.stdout);
    // On forty columns too; what is to be copied stays whole.
    let narrow = Plugin {
        kubeconfig: plugin.kubeconfig.clone(),
        columns: "40",
    };
    let said = narrow.run("check").await?;
    for line in said.stdout.lines() {
        let copied = line.starts_with("  $ ") || line.starts_with("  see: ");
        let word = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(
            copied || line.chars().count() <= 40 || word.len() > 36,
            "{line}"
        );
    }
    for cell in cells {
        installed.site.rep(cell).process.resume();
    }
    let said = plugin.run("check --wait 60s").await?;
    assert_eq!(said.status, 0, "{}", said.stdout);
    Ok(())
}

async fn no_leader(plugin: &Plugin, installed: &mut Installed) -> Result<(), Failure> {
    let site = &mut installed.site;
    site.kill_controller().await;
    let words = [
        "no controller leads",
        "which led, renewed the Lease diego-system/diego-controller last",
        "kubectl logs --namespace diego-system deployment/diego-diego-operator-controller",
    ];
    finds(plugin, "", "leader", "failure", &words).await?;
    deployment(site, SPACE, "diego", 0).await?;
    finds(
        plugin,
        "",
        "deployment",
        "failure",
        &["0 of 2 controllers are ready", "DiegoControllerDown.md"],
    )
    .await?;
    // Nobody shows metrics; that is told, and hangs nothing.
    let found = Found::by(plugin, "").await?;
    assert!(
        found.has("presence-store", "warning", &["is not known"]),
        "{:?}",
        found.all
    );
    let leases = Api::<Lease>::namespaced(site.client.clone(), SPACE);
    leases
        .delete("diego-controller", &Default::default())
        .await?;
    eventually("no Lease", START, || async {
        let found = Found::by(plugin, "").await.ok()?;
        found
            .has("leader", "failure", &["there is no Lease"])
            .then_some(())
    })
    .await
}
