//! A node is cut off with its Pods alive, replaced, and comes back: nothing runs twice, nothing is left behind.

use super::{dead_node::only_live_endpoints, long_task, task_is};
use crate::{
    installed::{Installed, SOON},
    support::{Failure, eventually},
};
use std::collections::BTreeSet;

pub async fn a_node_is_cut_off_and_comes_back(site: &Installed) -> Result<(), Failure> {
    let before = site.running("web", 15, |_| true).await?;
    let (_, leads) = site.leader().await?;
    let cut = before
        .iter()
        .map(|slot| &slot.cell)
        .find(|cell| **cell != leads);
    let cut = cut.ok_or("all instances are with the leader")?.clone();
    long_task(site, "cut-off", &cut).await?;
    let watching = site.watch("get actuallrps -w")?;
    eventually("kubectl watches", SOON, || async {
        (watching.lines().ok()?.len() > 15).then_some(())
    })
    .await?;

    site.node(&cut)?.cut().await?;
    let away = site.running("web", 15, |slot| slot.cell != cut).await?;
    let failed = format!("Completed/{cut}/cell disappeared before completion");
    task_is(site, "cut-off", &failed).await?;
    // Behind the cut all lives on.
    let alive = containers(site, &cut).await?;
    let was_there = before.iter().filter(|slot| slot.cell == cut).count();
    assert_eq!(alive.len(), was_there + 1, "{alive:?}");

    site.node(&cut)?.heal().await?;
    site.cells_ready(3).await?;
    eventually("no container is left on the healed node", SOON, || async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        containers(site, &cut).await.ok()?.is_empty().then_some(())
    })
    .await?;
    assert_eq!(site.running("web", 15, |_| true).await?, away);
    only_live_endpoints(site).await?;
    task_is(site, "cut-off", &failed).await?;
    let left = format!("get pods -l diego.cloudfoundry.org/cell={cut} -o name");
    assert_eq!(site.kubectl(&left).await?, "");

    // One line per slot at any time, and Running on one Cell, then on another.
    let lines = watching.lines()?;
    let slots: BTreeSet<&str> = before.iter().map(|slot| slot.name.as_str()).collect();
    for slot in &before {
        let mut runs: Vec<&str> = lines
            .iter()
            .filter(|words| {
                words.first() == Some(&slot.name)
                    && words.get(3).is_some_and(|state| state == "Running")
            })
            .filter_map(|words| words.get(4).map(String::as_str))
            .collect();
        runs.dedup();
        let expected = if slot.cell == cut { 2 } else { 1 };
        assert_eq!(runs.len(), expected, "{}: {runs:?}", slot.name);
    }
    let others = |words: &&Vec<String>| {
        let name = words.first().map_or("", String::as_str);
        name != "NAME" && !slots.contains(name)
    };
    assert_eq!(lines.iter().find(others), None);
    Ok(())
}

/// The containers of our Pods that the node's containerd has.
async fn containers(site: &Installed, node: &str) -> Result<Vec<String>, Failure> {
    let ours = r#"labels."io.kubernetes.pod.namespace"==default,labels."io.kubernetes.container.name"~="^(web|work)$",labels."io.kubernetes.pod.name"~="^(web-|cut-off)""#;
    let ask = [
        "ctr",
        "--namespace",
        "k8s.io",
        "containers",
        "list",
        "--quiet",
        ours,
    ];
    let listed = site.node(node)?.exec(&ask).await?;
    Ok(listed.lines().map(str::to_owned).collect())
}
