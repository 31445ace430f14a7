//! The messenger is lost, not the Cells: the API server is away, the reps are replaced. Nothing moves.

use super::{long_task, task_is};
use crate::{
    installed::{Installed, NAMESPACE, SOON},
    look::{Slot, items, text},
    support::{Failure, eventually},
};
use std::time::Duration;

/// Three times the presence TTL, and some.
const AWAY: Duration = Duration::from_secs(16);

pub async fn the_api_server_is_away(site: &mut Installed) -> Result<(), Failure> {
    let before = Before::look(site).await?;
    site.nodes.cluster().stop_apiserver().await;
    // The fault itself takes this long.
    tokio::time::sleep(AWAY).await;
    let renewed = "get leases -n diego-system -l diego.cloudfoundry.org/presence=cell";
    site.site.nodes.cluster_mut().restart_apiserver().await?;
    let stale = renewals(site, renewed).await?;
    eventually("all Cells renew again", SOON, || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = renewals(site, renewed).await.ok()?;
        let mut both = now.iter().zip(&stale);
        both.all(|(now, stale)| now != stale).then_some(())
    })
    .await?;
    before.is_untouched(site).await?;
    // Kubernetes' own parts take their time until they look again.
    site.kubectl("scale deployment plain --replicas=7").await?;
    site.kubectl("rollout status deployment/plain --timeout=120s")
        .await
        .map(drop)
}

pub async fn the_reps_are_replaced(site: &Installed) -> Result<(), Failure> {
    long_task(site, "patient", "node-2").await?;
    let before = Before::look(site).await?;
    let watching = site.watch("get cells -w")?;
    let rep = format!("daemonset/diego-operator-rep -n {NAMESPACE}");
    // kube-controller-manager may wait five minutes for a watch event that it missed.
    site.kubectl(&format!("rollout restart {rep}")).await?;
    site.kubectl(&format!("rollout status {rep} --timeout=360s"))
        .await?;
    let reps = format!("get pods -n {NAMESPACE} -l app.kubernetes.io/component=rep");
    let pods = site.kubectl(&format!("{reps} -o name")).await?;
    let one = pods.lines().next().ok_or("no rep")?;
    site.kubectl(&format!("delete -n {NAMESPACE} {one}"))
        .await?;
    let ready =
        format!(r#"{reps} -o jsonpath={{.items[*].status.conditions[?(@.type=="Ready")].status}}"#);
    site.until(&ready, SOON, |ready| ready == "True True True")
        .await?;
    site.cells_ready(3).await?;
    before.is_untouched(site).await?;
    let lines = watching.lines()?;
    let missing = lines
        .iter()
        .find(|words| words.contains(&"PresenceExpired".to_owned()));
    assert_eq!(missing, None);
    Ok(())
}

/// What must be the same afterwards.
struct Before {
    slots: Vec<Slot>,
    losses: u64,
}

impl Before {
    async fn look(site: &Installed) -> Result<Self, Failure> {
        Ok(Self {
            slots: site.running("web", 15, |_| true).await?,
            losses: losses(site).await?,
        })
    }

    /// New work is placed, and until then nothing else was: the controller has judged and found nothing to do.
    async fn is_untouched(&self, site: &Installed) -> Result<(), Failure> {
        site.kubectl("scale desiredlrp web --replicas=16").await?;
        let mut slots = site.running("web", 16, |_| true).await?;
        site.kubectl("scale desiredlrp web --replicas=15").await?;
        slots.retain(|slot| slot.name != "web-15");
        assert_eq!(slots, self.slots);
        assert_eq!(site.running("web", 15, |_| true).await?, self.slots);
        assert_eq!(losses(site).await?, self.losses);
        task_is(site, "patient", "Running/node-2/").await
    }
}

/// How often a Cell was told to be lost.
async fn losses(site: &Installed) -> Result<u64, Failure> {
    let mut losses = 0;
    for cell in ["node-1", "node-2", "node-3"] {
        losses += site
            .told(cell)
            .await?
            .get("CellPresenceExpired")
            .unwrap_or(&0);
    }
    Ok(losses)
}

async fn renewals(site: &Installed, ask: &str) -> Result<Vec<String>, Failure> {
    let list = site.json(ask).await?;
    Ok(items(&list)
        .map(|lease| text(&lease["spec"]["renewTime"]))
        .collect())
}
