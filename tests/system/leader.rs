//! Two controllers, one of which leads: they are killed, frozen and stopped, alone and together with a Cell.

use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, CellState, TaskState};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::observer::Observer;
use crate::support::site::{Controller, START, Site};
use crate::support::{Failure, eventually, objects};

const LEADS: &str = "leader_election_master_status{name=\"diego-controller\"}";

/// Times so long that nobody is deposed because this machine is busy, with looks at the Lease as often as by default.
const SLOW: [&str; 7] = [
    "--leader-elect",
    "--leader-elect-lease-duration-seconds",
    "30",
    "--leader-elect-renew-deadline-seconds",
    "20",
    "--leader-elect-retry-period-seconds",
    "0.5",
];

fn lease_api(client: &Client, namespace: &str) -> Api<Lease> {
    Api::namespaced(client.clone(), namespace)
}

/// The Lease.
async fn lease(site: &Site) -> Result<LeaseSpec, Failure> {
    let lease = lease_api(&site.client, "default")
        .get("diego-controller")
        .await?;
    Ok(lease.spec.unwrap_or_default())
}

async fn leads(controller: &Controller, expected: bool) -> Result<(), Failure> {
    let what = format!("{} leads: {expected}", controller.process.name());
    eventually(&what, START, || async {
        let leads = controller.metric(LEADS).await.ok()?;
        (leads == f64::from(u8::from(expected))).then_some(())
    })
    .await
}

/// How many writes a controller has sent to the API server, those to the Lease (by PUT) aside.
async fn sent_writes(controller: &Controller) -> Result<u64, Failure> {
    let text = controller.metrics().await?;
    let writes = text.lines().filter(|line| {
        let of_requests = line.starts_with("rest_client_requests_total{");
        let verbs = ["POST", "PATCH", "DELETE"];
        of_requests
            && verbs
                .iter()
                .any(|verb| line.contains(&format!("method=\"{verb}\"")))
    });
    let values = writes.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum::<f64>() as u64)
}

fn logged(site: &Site, controller: &Controller, words: &str) -> usize {
    let log = site
        .dir()
        .join(format!("{}.log", controller.process.name()));
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.matches(words).count()
}

/// A leader, and one that stands by behind it.
async fn pair(site: &Site, flags: &[&str]) -> Result<(Controller, Controller), Failure> {
    let leader = site.another_controller("one", flags).await?;
    leads(&leader, true).await?;
    let standby = site.another_controller("two", flags).await?;
    eventually("the second stands by", START, || async {
        (logged(site, &standby, "standing by behind") == 1).then_some(())
    })
    .await?;
    Ok((leader, standby))
}

/// A site with three Cells and what two controllers make of six instances and a Task on each Cell.
struct Stage {
    // Dropped in this order: whoever talks to the servers before these.
    observer: Observer,
    leader: Controller,
    standby: Controller,
    site: Site,
    before: Vec<ActualLRP>,
}

impl Stage {
    async fn set(flags: &[&str]) -> Result<Stage, Failure> {
        let mut site = Site::start().await?;
        let observer = Observer::start(site.client.clone(), site.dir()).await?;
        let (leader, standby) = pair(&site, flags).await?;
        for (cell, zone) in [("a", "z1"), ("b", "z2"), ("c", "z3")] {
            site.start_rep(cell, zone, &[]).await?;
        }
        let script = format!("{} exec sleep 100000", observer.log_line());
        let container = json!({ "name": "main", "command": ["sh", "-c", script] });
        site.desire(&objects::lrp(
            "web",
            6,
            json!({ "containers": [container] }),
        ))
        .await?;
        let before = site.running("web", 6, |_| true).await?;
        for n in 0..3 {
            site.run_task(&objects::task(&format!("long-{n}"), &script))
                .await?;
        }
        eventually("every Task runs", START, || async {
            let tasks = site.tasks().list(&ListParams::default()).await.ok()?.items;
            let running = tasks.iter().filter(|task| {
                let status = task.status.as_ref();
                status.is_some_and(|status| status.state == TaskState::Running)
            });
            (running.count() == 3).then_some(())
        })
        .await?;
        Ok(Stage {
            observer,
            leader,
            standby,
            site,
            before,
        })
    }

    /// Waits until what Cell b ran runs elsewhere, and looks whether it was moved once, and nothing else at all.
    async fn recovered(&self) -> Result<Instant, Failure> {
        let after = self.site.running("web", 6, |cell| cell != "b").await?;
        let done = Instant::now();
        for (now, before) in after.iter().zip(&self.before) {
            let name = now.name_any();
            let now = now.status.clone().unwrap_or_default();
            let before = before.status.clone().unwrap_or_default();
            let moved = now.instance_guid != before.instance_guid;
            let lost = before.cell_name.as_deref() == Some("b");
            assert_eq!(moved, lost, "{name}: {before:?} -> {now:?}");
        }
        self.site.cell_state("b", CellState::Missing).await?;
        let failed = eventually("the Task of the lost Cell has failed", START, || async {
            let tasks = self.site.tasks().list(&ListParams::default()).await.ok()?;
            let ended = tasks.items.into_iter().filter_map(|task| task.status);
            let ended: Vec<_> = ended
                .filter(|status| status.state == TaskState::Completed)
                .collect();
            (!ended.is_empty()).then_some(ended)
        })
        .await?;
        assert_eq!(failed.len(), 1, "{failed:?}");
        self.observer.check()?;
        Ok(done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_is_warm_and_writes_nothing() -> Result<(), Failure> {
    let mut stage = Stage::set(&SLOW).await?;
    let held = lease(&stage.site).await?;
    assert_eq!(held.lease_duration_seconds, Some(30));
    let holder = held.holder_identity.ok_or("somebody leads")?;
    assert_eq!(held.lease_transitions, Some(0));
    let behind = format!("standing by behind {holder}");
    assert_eq!(logged(&stage.site, &stage.standby, &behind), 1);
    assert_eq!(logged(&stage.site, &stage.leader, "standing by"), 0);
    stage.site.kill_cell("b").await;
    stage.recovered().await?;

    assert!(stage.standby.is_ready().await, "a standby is ready");
    for series in [
        "diego_cells{state=\"Missing\"} 1",
        "diego_cells{state=\"Present\"} 2",
        "diego_actuallrps{state=\"Running\"} 6",
        "diego_tasks{state=\"Running\"} 2",
        "diego_presence_store_reachable 1",
    ] {
        eventually(&format!("the standby knows: {series}"), START, || async {
            stage
                .standby
                .metrics()
                .await
                .ok()?
                .contains(series)
                .then_some(())
        })
        .await?;
    }
    assert!(sent_writes(&stage.leader).await? > 10);
    assert_eq!(sent_writes(&stage.standby).await?, 0);
    let tried = "diego_writes_total{outcome=\"not_leading\"}";
    assert_eq!(stage.standby.metric(tried).await?, 0.0, "it plans nothing");
    assert_eq!(stage.standby.metric(LEADS).await?, 0.0);
    assert_eq!(stage.leader.metric(LEADS).await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_and_a_cell_die_at_once() -> Result<(), Failure> {
    // With the default times.
    let mut stage = Stage::set(&["--leader-elect"]).await?;
    let before = lease(&stage.site).await?;
    let killed = Instant::now();
    // Whoever leads by now: on a busy machine that may have changed.
    let first_leads = stage.leader.metric(LEADS).await? == 1.0;
    if !first_leads {
        std::mem::swap(&mut stage.leader, &mut stage.standby);
    }
    stage.leader.process.kill();
    stage.site.kill_cell("b").await;
    let led = async {
        leads(&stage.standby, true).await?;
        Ok::<_, Failure>(killed.elapsed())
    };
    let (led, done) = tokio::try_join!(led, stage.recovered())?;
    let took = done - killed;
    println!("leader and Cell killed: another led after {led:?}, all ran elsewhere after {took:?}");
    // TTL + 3 s, and room for two busy cores. The passes over all Cells would need up to 30 s.
    assert!(took < Duration::from_secs(5 + 3 + 10), "{took:?}");
    let after = lease(&stage.site).await?;
    assert_ne!(after.holder_identity, before.holder_identity);
    assert!(after.lease_transitions > before.lease_transitions);
    let told = "diego_cell_presence_expired_total{source=\"watch\"}";
    assert_eq!(stage.standby.metric(told).await?, 1.0, "as by the watch");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_only_the_standby_sees_is_handled_when_it_leads() -> Result<(), Failure> {
    // The Cell is gone long before anybody may follow the leader.
    let flags = [
        "--leader-elect",
        "--leader-elect-lease-duration-seconds",
        "12",
        "--leader-elect-renew-deadline-seconds",
        "9",
    ];
    let mut stage = Stage::set(&flags).await?;
    stage.leader.process.kill();
    stage.site.kill_cell("b").await;
    eventually("the presence is gone", START, || async {
        let mut etcd = etcd_client::Client::connect(stage.site.etcd.endpoints(), None)
            .await
            .ok()?;
        let key = diego_operator::presence::etcd::key("b");
        let held = etcd.get(key, None).await.ok()?;
        (held.count() == 0).then_some(())
    })
    .await?;
    assert_eq!(stage.standby.metric(LEADS).await?, 0.0, "nobody leads yet");
    leads(&stage.standby, true).await?;
    let led = Instant::now();
    let took = stage.recovered().await?.saturating_duration_since(led);
    println!("after it led, all ran elsewhere within {took:?}");
    // As seen by its watch, and not by a pass that gives the watch its time first.
    let source = |source| format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
    assert_eq!(stage.standby.metric(&source("watch")).await?, 1.0);
    assert_eq!(stage.standby.metric(&source("resync")).await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_writes_nothing_when_it_thaws() -> Result<(), Failure> {
    let flags = [
        "--leader-elect",
        "--leader-elect-lease-duration-seconds",
        "5",
        "--leader-elect-renew-deadline-seconds",
        "4",
    ];
    let mut stage = Stage::set(&flags).await?;
    let written = eventually("the leader has come to rest", START, || async {
        let before = sent_writes(&stage.leader).await.ok()?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (sent_writes(&stage.leader).await.ok()? == before).then_some(before)
    })
    .await?;
    stage.leader.process.pause();
    // Its watches have all that happens waiting for it when it thaws.
    stage.site.kill_cell("b").await;
    leads(&stage.standby, true).await?;
    stage.recovered().await?;
    stage.site.desire(&objects::sleepers("more", 3)).await?;
    stage.site.running("more", 3, |cell| cell != "b").await?;
    stage.leader.process.resume();
    eventually("the old leader stands by", START, || async {
        (logged(&stage.site, &stage.leader, "standing by behind") == 1).then_some(())
    })
    .await?;
    eventually("it has seen what happened", START, || async {
        let text = stage.leader.metrics().await.ok()?;
        let seen = [
            "diego_cells{state=\"Missing\"} 1",
            "diego_actuallrps{state=\"Running\"} 9",
        ];
        seen.iter()
            .all(|series| text.contains(series))
            .then_some(())
    })
    .await?;
    // Something that both hear of and only one may act on.
    let more = Patch::Merge(json!({ "spec": { "instances": 4 } }));
    let api = stage.site.desired();
    api.patch("more", &PatchParams::default(), &more).await?;
    stage.site.running("more", 4, |cell| cell != "b").await?;
    assert_eq!(stage.leader.metric(LEADS).await?, 0.0);
    assert_eq!(
        sent_writes(&stage.leader).await?,
        written,
        "writes of the old leader"
    );
    stage.observer.check()?;

    // It is as warm as any standby: when the new leader dies, it leads again.
    stage.standby.process.kill();
    leads(&stage.leader, true).await?;
    let more = Patch::Merge(json!({ "spec": { "instances": 5 } }));
    api.patch("more", &PatchParams::default(), &more).await?;
    stage.site.running("more", 5, |cell| cell != "b").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_at_once() -> Result<(), Failure> {
    let stage = Stage::set(&SLOW).await?;
    let asked = Instant::now();
    stage.leader.process.terminate();
    let (status, led) = tokio::join!(stage.leader.process.wait(), leads(&stage.standby, true));
    led?;
    let took = asked.elapsed();
    println!("another led {took:?} after the leader was asked to stop");
    assert!(status.success(), "{status}");
    // The lease itself would run for 30 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(
        logged(&stage.site, &stage.leader, "the lead is given up"),
        1
    );
    assert_eq!(lease(&stage.site).await?.lease_transitions, Some(1));
    stage.site.desire(&objects::sleepers("more", 3)).await?;
    stage.site.running("more", 3, |_| true).await?;
    stage.observer.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_nobody_is_elected() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;
    let leases = Api::<Lease>::all(site.client.clone());
    let mut leases = leases.list(&ListParams::default()).await?.items;
    leases.retain(|lease| lease.name_any().starts_with("diego"));
    assert_eq!(leases, [], "no Lease is made");
    assert_eq!(site.metric(LEADS).await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_lives_in_the_given_namespace_and_one_that_is_missing_is_told()
-> Result<(), Failure> {
    let site = Site::start().await?;
    let flags = ["--leader-elect", "--namespace", "diego-system"];
    let controller = site.another_controller("one", &flags).await?;
    eventually("the trouble is told", START, || async {
        let told = logged(&site, &controller, "check --namespace");
        (told == 1 && logged(&site, &controller, "diego-system") > 0).then_some(())
    })
    .await?;
    assert!(controller.is_ready().await);
    assert_eq!(controller.metric(LEADS).await?, 0.0);
    let made = site
        .cluster
        .kubectl(&["create", "namespace", "diego-system"])
        .await?;
    assert!(made.status.success());
    leads(&controller, true).await?;
    let api = lease_api(&site.client, "diego-system");
    let lease = api.get("diego-controller").await?.spec.unwrap_or_default();
    assert!(lease.holder_identity.is_some_and(|it| it.contains('_')));
    assert!(lease.renew_time.is_some() && lease.acquire_time.is_some());
    Ok(())
}
