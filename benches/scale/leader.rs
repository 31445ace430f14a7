//! New leaders: one that stood by, one that starts with nothing, and one that is needed in the moment in which a Cell is
//! lost.

use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, DesiredLRP};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde::Serialize;

use super::fleet::Fleet;
use super::loader;
use super::loss::{self, Wishes};
use super::numbers::Percentiles;
use super::plan::Plan;
use super::sights::{Observer, Sight};
use crate::support::site::{Controller, Site};
use crate::support::{Failure, eventually, http};

/// The leader's Lease.
const LEASE: &str = "diego-controller";

/// Objects on a page of a list, as the controller asks for them.
const PAGE: u32 = 500;

/// A Lease that was not given up is free after this.
const FREE: Duration = Duration::from_secs(3);

/// What was measured; all in seconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaders {
    /// A list of all instances, page by page, by this program.
    pub list: f64,
    /// From the start of the only controller to its first write about an instance.
    pub cold: Option<f64>,
    /// From the start of a standby until it is ready to lead.
    pub warming: Option<Percentiles>,
    /// From the death of the leader until the standby has its Lease.
    pub taken: Option<Percentiles>,
    /// From then to its first write about an instance.
    pub acted: Option<Percentiles>,
    /// Leader and Cell die together: from then until all of its work has a place, and until all of it runs.
    pub together: Option<(Percentiles, Percentiles)>,
}

/// Everything about new leaders. No controller runs before, and none after.
pub async fn measure(
    site: &Site,
    client: &Client,
    plan: &Plan,
    (fleet, observer): (&mut Fleet, &mut Observer),
    args: &[&str],
) -> Result<Leaders, Failure> {
    let began = Instant::now();
    let all = Api::<ActualLRP>::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let some = all.list(&page).await?;
        match some.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page.continue_token = Some(next),
            None => break,
        }
    }
    let mut done = Leaders {
        list: began.elapsed().as_secs_f64(),
        cold: None,
        warming: None,
        taken: None,
        acted: None,
        together: None,
    };
    let args: Vec<&str> = args.iter().copied().chain(["--leader-elect"]).collect();
    observer.skip();
    desire(client, "cold").await?;
    let began = Instant::now();
    let start = site.another_controller("leader-0", &args);
    let (leader, at) = tokio::join!(start, placed(plan, observer, "cold-0"));
    let mut leader = leader?;
    done.cold = Some((at? - began).as_secs_f64());
    let (mut warming, mut taken, mut acted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut all_placed, mut all_running) = (Vec::new(), Vec::new());
    for n in 0..plan.leaders * 2 {
        leads(&leader).await?;
        let began = Instant::now();
        let name = format!("leader-{}", n + 1);
        let standby = site.another_controller(&name, &args).await?;
        warming.push(began.elapsed().as_secs_f64());
        // The new one's lists are behind us, and what they cost the server.
        tokio::time::sleep(FREE).await;
        observer.skip();
        if n % 2 == 0 {
            let watch = taken_from(client).await?;
            let killed = Instant::now();
            leader.process.kill();
            let name = format!("warm-{n}");
            desire(client, &name).await?;
            let record = format!("{name}-0");
            let (leads, at) = tokio::try_join!(watch, placed(plan, observer, &record))?;
            taken.push((leads - killed).as_secs_f64());
            acted.push(at.saturating_duration_since(leads).as_secs_f64());
        } else {
            let victim = fleet.living().into_iter().next();
            let victim = victim.ok_or("no Cell lives")?;
            leader.process.kill();
            let dead = fleet.kill(&[victim]);
            let nobody = (&Wishes::default(), &Default::default());
            let seen = loss::follow(plan, dead, observer, nobody).await?;
            all_placed.extend(seen.cells.iter().map(|cell| cell[2]));
            all_running.extend(seen.cells.iter().map(|cell| cell[3]));
        }
        leader = standby;
    }
    done.warming = Percentiles::of(&warming);
    done.taken = Percentiles::of(&taken);
    done.acted = Percentiles::of(&acted);
    done.together = Percentiles::of(&all_placed).zip(Percentiles::of(&all_running));
    leader.process.kill();
    leader.process.wait().await;
    Ok(done)
}

/// Somebody wants an instance.
async fn desire(client: &Client, name: &str) -> Result<(), kube::Error> {
    let api = Api::<DesiredLRP>::namespaced(client.clone(), "default");
    let wanted = loader::desired(name, 1);
    api.create(&PostParams::default(), &wanted).await.map(drop)
}

/// When the first change of that instance is seen.
async fn placed(plan: &Plan, observer: &mut Observer, name: &str) -> Result<Instant, Failure> {
    let deadline = tokio::time::Instant::now() + plan.patience();
    loop {
        let next = tokio::time::timeout_at(deadline, observer.next()).await;
        let next =
            next.map_err(|_| format!("not within {:?}: {name} is placed", plan.patience()))?;
        if let (at, Sight::Instance { record, .. }) = next?
            && record == name
        {
            return Ok(at);
        }
    }
}

/// Waits until a controller says that it leads.
async fn leads(controller: &Controller) -> Result<(), Failure> {
    let series = format!("leader_election_master_status{{name=\"{LEASE}\"}}");
    eventually(
        "the new controller leads",
        Duration::from_secs(60),
        || async {
            let text = controller.metrics().await.ok()?;
            (http::metric(&text, &series) == Some(1.0)).then_some(())
        },
    )
    .await
}

/// When somebody else holds the leader's Lease.
async fn taken_from(
    client: &Client,
) -> Result<impl Future<Output = Result<Instant, Failure>>, Failure> {
    let api = Api::<Lease>::namespaced(client.clone(), "default");
    let lease = api.get(LEASE).await?;
    let holder = |lease: &Lease| {
        lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone())
    };
    let before = holder(&lease);
    let params = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
    let version = lease.resource_version().unwrap_or_default();
    let watch = api.watch(&params, &version).await?.boxed();
    Ok(async move {
        let mut watch = watch;
        while let Some(event) = watch.try_next().await? {
            if let WatchEvent::Modified(lease) | WatchEvent::Added(lease) = event
                && holder(&lease)
                    .is_some_and(|now| !now.is_empty() && Some(&now) != before.as_ref())
            {
                return Ok(Instant::now());
            }
        }
        Err("the watch of the leader's Lease has ended".into())
    })
}
