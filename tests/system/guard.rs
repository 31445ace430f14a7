//! Too many Cells are gone at once: their losses are held back until Cells return or an operator confirms them. And one
//! that flaps takes no new work for a while.

use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, CellState, CellStatus, TaskState};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::support::site::{Controller, START, Site};
use crate::support::{Failure, eventually, objects};

const CONFIRM: &str = "diego.cloudfoundry.org/confirm-loss";

/// So that the safety net looks often: it must not do what the watch does not do.
const OFTEN: [&str; 2] = ["--convergence-interval-seconds", "1"];

const LOST: &str = "diego_cell_presence_expired_total";

/// Cells in these zones, and what runs on them before anything happens.
struct Stage {
    site: Site,
    cells: Vec<String>,
    before: Vec<ActualLRP>,
}

impl Stage {
    /// Two instances and one Task for each Cell.
    async fn set(site: Site, zones: &[(&str, &str)]) -> Result<Stage, Failure> {
        let mut site = site;
        for (cell, zone) in zones {
            site.start_rep(cell, zone, &[]).await?;
        }
        let count = 2 * zones.len();
        site.desire(&objects::sleepers("web", i32::try_from(count)?))
            .await?;
        let before = site.running("web", count, |_| true).await?;
        for n in 0..zones.len() {
            let task = objects::task(&format!("long-{n}"), "sleep 100000");
            site.run_task(&task).await?;
        }
        let stage = Stage {
            site,
            cells: zones.iter().map(|(cell, _)| (*cell).into()).collect(),
            before,
        };
        eventually("every Task runs", START, || async {
            let tasks = stage.tasks().await.ok()?;
            let running = |task: &(String, TaskState)| task.1 == TaskState::Running;
            let all = tasks.len() == zones.len() && tasks.iter().all(running);
            all.then_some(())
        })
        .await?;
        Ok(stage)
    }

    /// The Cell and the state of every Task.
    async fn tasks(&self) -> Result<Vec<(String, TaskState)>, Failure> {
        let tasks = self.site.tasks().list(&ListParams::default()).await?.items;
        let status = tasks.into_iter().filter_map(|task| task.status);
        let told = status.map(|status| (status.cell_name.unwrap_or_default(), status.state));
        Ok(told.collect())
    }

    async fn status(&self, cell: &str) -> Result<CellStatus, Failure> {
        Ok(self
            .site
            .cells()
            .get(cell)
            .await?
            .status
            .unwrap_or_default())
    }

    /// Waits until the condition Ready of these Cells has this reason.
    async fn reason(&self, cells: &[&str], reason: &str) -> Result<(), Failure> {
        let what = format!("{cells:?}: {reason}");
        let told = eventually(&what, START, || async {
            for cell in cells {
                let status = self.status(cell).await.ok()?;
                let ready = status.conditions.iter().find(|it| it.type_ == "Ready")?;
                if ready.reason != reason {
                    return None;
                }
            }
            Some(())
        });
        match told.await {
            Ok(()) => Ok(()),
            Err(failure) => Err(format!("{failure}\n{}", self.site.picture().await).into()),
        }
    }

    /// Waits until the safety net has been over everything three times more.
    async fn passes(&self, controller: &Controller) -> Result<(), Failure> {
        let series = "diego_convergence_runs_total{trigger=\"resync\"}";
        let before = controller.metric(series).await?;
        eventually("three runs", START, || async {
            (controller.metric(series).await.ok()? >= before + 3.0).then_some(())
        })
        .await
    }

    /// Nothing that was on these Cells has moved or failed.
    async fn untouched(&self, cells: &[&str]) -> Result<(), Failure> {
        let now = self.site.instances("web").await?;
        assert_eq!(now.len(), self.before.len());
        for (now, before) in now.iter().zip(&self.before) {
            let name = now.name_any();
            let now = now.status.clone().unwrap_or_default();
            let before = before.status.clone().unwrap_or_default();
            if cells.contains(&before.cell_name.as_deref().unwrap_or_default()) {
                assert_eq!(now.state, ActualLRPState::Running, "{name}");
                assert_eq!(now.cell_name, before.cell_name, "{name}");
                assert_eq!(now.instance_guid, before.instance_guid, "{name}");
                assert_eq!(now.suspect, None, "{name}");
            }
        }
        for (cell, state) in self.tasks().await? {
            if cells.contains(&&*cell) {
                assert_eq!(state, TaskState::Running, "a Task on {cell}");
            }
        }
        Ok(())
    }

    /// How often an Event with this reason was told of a Cell.
    async fn told(&self, cell: &str, reason: &str) -> Result<i32, Failure> {
        let events = Api::<Event>::all(self.site.client.clone());
        let events = events.list(&ListParams::default()).await?.items;
        let about = |event: &&Event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            regarding.name.as_deref() == Some(cell) && event.reason.as_deref() == Some(reason)
        };
        let count = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
        Ok(events.iter().filter(about).map(count).sum())
    }

    /// Freezes all reps; what they run goes on.
    fn freeze(&self) {
        for cell in &self.cells {
            self.site.rep(cell).process.pause();
        }
    }

    fn thaw(&self) {
        for cell in &self.cells {
            self.site.rep(cell).process.resume();
        }
    }

    fn names(&self) -> Vec<&str> {
        self.cells.iter().map(String::as_str).collect()
    }
}

/// What the guard shows, and how many losses were believed so far, by whatever noticed them.
async fn shown(controller: &Controller) -> Result<(f64, f64, f64), Failure> {
    let mut believed = 0.0;
    for source in ["watch", "timer", "resync"] {
        let series = format!("{LOST}{{source=\"{source}\"}}");
        believed += controller.metric(&series).await?;
    }
    Ok((
        controller.metric("diego_mass_loss_guard_active").await?,
        controller.metric("diego_cell_losses_held").await?,
        believed,
    ))
}

/// Waits until these are shown: the gauges follow what happened, in a look of their own.
async fn shows(controller: &Controller, what: (f64, f64, f64)) -> Result<(), Failure> {
    let told = eventually(
        "guard, held and believed losses in the metrics",
        START,
        || async { (shown(controller).await.ok()? == what).then_some(()) },
    );
    match told.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            Err(format!("{failure}: {:?}, not {what:?}", shown(controller).await).into())
        }
    }
}

const THREE: [(&str, &str); 3] = [("a", "z1"), ("b", "z2"), ("c", "z3")];

#[tokio::test(flavor = "multi_thread")]
async fn when_all_cells_are_gone_at_once_nothing_moves_and_all_is_well_when_they_are_back()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    let stage = Stage::set(site, &THREE).await?;
    let controller = stage.site.controller();
    shows(controller, (0.0, 0.0, 0.0)).await?;
    stage.freeze();
    stage.reason(&stage.names(), "MassLossHeld").await?;
    eventually("the metrics tell of it", START, || async {
        (shown(controller).await.ok()? == (1.0, 3.0, 0.0)).then_some(())
    })
    .await?;
    // New work stays away from Cells that are not there.
    stage.site.desire(&objects::sleepers("new", 1)).await?;
    stage.passes(controller).await?;
    stage.untouched(&stage.names()).await?;
    let new = stage.site.instances("new").await?;
    let error = new[0].status.clone().unwrap_or_default().placement_error;
    assert!(error.is_some(), "{new:?}");
    for cell in &stage.cells {
        let status = stage.status(cell).await?;
        assert_eq!(status.state, Some(CellState::Present), "{cell}");
        let told = eventually("the Event is there", START, || async {
            let told = stage.told(cell, "CellLossHeld").await.ok()?;
            (told > 0).then_some(told)
        });
        assert_eq!(told.await?, 1, "once for each hold");
    }

    stage.thaw();
    stage.reason(&stage.names(), "PresenceHeld").await?;
    eventually("the guard is at rest", START, || async {
        (shown(controller).await.ok()? == (0.0, 0.0, 0.0)).then_some(())
    })
    .await?;
    stage.site.running("new", 1, |_| true).await?;
    stage.passes(controller).await?;
    stage.untouched(&stage.names()).await?;
    for cell in &stage.cells {
        assert_eq!(stage.status(cell).await?.flaps, None, "that was no flap");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_guard_every_loss_is_believed() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let off = [&OFTEN[..], &["--mass-loss-threshold-percent", "100"]].concat();
    site.start_controller(&off).await?;
    let stage = Stage::set(site, &THREE).await?;
    stage.freeze();
    stage.reason(&stage.names(), "PresenceExpired").await?;
    shows(stage.site.controller(), (0.0, 0.0, 3.0)).await?;
    eventually("every Task has failed", START, || async {
        let tasks = stage.tasks().await.ok()?;
        let ended = |task: &(String, TaskState)| task.1 == TaskState::Completed;
        let all = tasks.len() == THREE.len() && tasks.iter().all(ended);
        all.then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_is_taken_for_one_cell_and_never_against_one_that_is_there()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    // So many that those that are left are a mass loss still when one is believed.
    let zones = [("a", "z1"), ("b", "z2"), ("c", "z3"), ("d", "z4")];
    let mut stage = Stage::set(site, &zones).await?;
    for cell in ["a", "b", "d"] {
        stage.site.kill_cell(cell).await;
    }
    stage.reason(&["a", "b", "d"], "MassLossHeld").await?;
    stage.untouched(&stage.names()).await?;

    let confirm = async |cell: &str| {
        let word = format!("{CONFIRM}=true");
        let words = ["annotate", "cell", cell, &word];
        let said = stage.site.cluster.kubectl(&words).await?;
        assert!(said.status.success(), "{said:?}");
        eventually("the annotation is taken away", START, || async {
            let cell = stage.site.cells().get(cell).await.ok()?;
            (!cell.annotations().contains_key(CONFIRM)).then_some(())
        })
        .await
    };
    confirm("c").await?;
    confirm("a").await?;
    stage.site.cell_state("a", CellState::Missing).await?;
    let last = stage.status("a").await?.last_recovery;
    assert_eq!(last.and_then(|last| last.confirmed), Some(true));
    eventually(
        "what ran on a runs on c, and its Task has failed",
        START,
        || async {
            let instances = stage.site.instances("web").await.ok()?;
            let moved = instances.iter().zip(&stage.before).all(|(now, before)| {
                let cell = |lrp: &ActualLRP| lrp.status.clone().unwrap_or_default().cell_name;
                let state = now.status.clone().unwrap_or_default().state;
                cell(before).as_deref() != Some("a")
                    || cell(now).as_deref() == Some("c") && state == ActualLRPState::Running
            });
            let tasks = stage.tasks().await.ok()?;
            let failed = tasks.contains(&("a".into(), TaskState::Completed));
            (moved && failed).then_some(())
        },
    )
    .await?;
    stage.passes(stage.site.controller()).await?;
    stage.untouched(&["b", "c", "d"]).await?;
    assert_eq!(stage.status("c").await?.state, Some(CellState::Present));

    confirm("b").await?;
    confirm("d").await?;
    stage.site.running("web", 8, |cell| cell == "c").await?;
    shows(stage.site.controller(), (0.0, 0.0, 3.0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_zone_is_recovered_at_once_while_another_has_cells() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    let zones = [("a", "z1"), ("b", "z1"), ("c", "z2")];
    let mut stage = Stage::set(site, &zones).await?;
    stage.site.kill_cell("a").await;
    stage.site.kill_cell("b").await;
    stage.site.running("web", 6, |cell| cell == "c").await?;
    for cell in ["a", "b"] {
        stage.site.cell_state(cell, CellState::Missing).await?;
        let last = stage.status(cell).await?.last_recovery;
        let last = last.ok_or("its loss is recorded")?;
        assert_eq!(
            (last.source.as_deref(), last.confirmed),
            (Some("watch"), None)
        );
        assert_eq!(stage.told(cell, "CellLossHeld").await?, 0);
    }
    shows(stage.site.controller(), (0.0, 0.0, 2.0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_loss_right_after_the_others_are_back_is_recovered_in_time()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    // So long that it is lost when the others are back, and so long that waiting for another TTL would show.
    let long = ["--presence-ttl-seconds", "10"];
    site.start_rep("d", "z4", &long).await?;
    let mut stage = Stage::set(site, &THREE).await?;
    stage.freeze();
    stage.reason(&stage.names(), "MassLossHeld").await?;
    stage.site.kill_cell("d").await;
    stage.passes(stage.site.controller()).await?;
    assert_eq!(stage.status("d").await?.state, Some(CellState::Present));
    stage.thaw();
    stage.reason(&stage.names(), "PresenceHeld").await?;

    stage.site.cell_state("d", CellState::Missing).await?;
    let last = stage.status("d").await?.last_recovery;
    let last = last.ok_or("its loss is recorded")?;
    let lost = last.lost_time.ok_or("when it was lost")?.0;
    let detected = last.detected_time.ok_or("when it was judged")?.0;
    let waited = Duration::try_from(detected.duration_since(lost))?;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    let all = stage.before.len();
    stage.site.running("web", all, |cell| cell != "d").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_was_draining_is_held_with_the_others_and_its_task_runs_on()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    let stage = Stage::set(site, &THREE).await?;
    stage.site.rep("c").process.terminate();
    stage.site.cell_state("c", CellState::Evacuating).await?;
    stage.freeze();
    stage.reason(&stage.names(), "MassLossHeld").await?;
    for _ in 0..3 {
        stage.passes(stage.site.controller()).await?;
    }
    stage.reason(&stage.names(), "MassLossHeld").await?;
    assert_eq!(stage.status("c").await?.state, Some(CellState::Evacuating));
    for (cell, state) in stage.tasks().await? {
        assert_eq!(state, TaskState::Running, "the Task on {cell}");
    }

    stage.thaw();
    stage.reason(&["a", "b"], "PresenceHeld").await?;
    stage.reason(&["c"], "Evacuating").await?;
    for (cell, state) in stage.tasks().await? {
        assert_eq!(state, TaskState::Running, "the Task on {cell}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_next_holds_what_was_held() -> Result<(), Failure> {
    let site = Site::start().await?;
    let flags = [&["--leader-elect"][..], &OFTEN].concat();
    let one = site.another_controller("one", &flags).await?;
    let two = site.another_controller("two", &flags).await?;
    let stage = Stage::set(site, &THREE).await?;
    stage.freeze();
    stage.reason(&stage.names(), "MassLossHeld").await?;
    let leads = async |controller: &Controller| {
        let series = "leader_election_master_status{name=\"diego-controller\"}";
        Ok::<_, Failure>(controller.metric(series).await? == 1.0)
    };
    // One that has seen them go follows the one that held them.
    let (leader, standby) = match leads(&one).await? {
        true => (one, two),
        false => (two, one),
    };
    leader.process.kill();
    let holds = async |controller: &Controller| {
        eventually("it leads and holds all three", START, || async {
            let holds = shown(controller).await.ok()? == (1.0, 3.0, 0.0);
            (leads(controller).await.ok()? && holds).then_some(())
        })
        .await
    };
    holds(&standby).await?;
    stage.passes(&standby).await?;
    stage.untouched(&stage.names()).await?;

    // And then one that has never seen them alive. Its grace is over within these runs.
    standby.process.kill();
    let last = stage.site.another_controller("three", &flags).await?;
    holds(&last).await?;
    stage.passes(&last).await?;
    stage.passes(&last).await?;
    stage.passes(&last).await?;
    holds(&last).await?;
    stage.untouched(&stage.names()).await?;
    for cell in &stage.cells {
        assert_eq!(stage.told(cell, "CellLossHeld").await?, 1, "{cell}");
    }
    stage.thaw();
    stage.reason(&stage.names(), "PresenceHeld").await?;
    stage.untouched(&stage.names()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_flaps_is_held_down_and_takes_work_again() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&OFTEN).await?;
    let short = ["--presence-ttl-seconds", "2"];
    site.start_rep("a", "z1", &short).await?;
    site.start_rep("b", "z2", &short).await?;
    let mut stage = Stage {
        site,
        cells: vec!["a".into(), "b".into()],
        before: Vec::new(),
    };
    let flap = async |stage: &Stage| {
        stage.site.rep("b").process.pause();
        stage.site.cell_state("b", CellState::Missing).await?;
        stage.site.rep("b").process.resume();
        stage.site.cell_state("b", CellState::Present).await
    };
    // Once is nothing: both zones share what comes.
    flap(&stage).await?;
    stage.reason(&["b"], "PresenceHeld").await?;
    stage.site.desire(&objects::sleepers("once", 2)).await?;
    let once = stage.site.running("once", 2, |_| true).await?;
    let on_b = |all: &[ActualLRP]| {
        let cells = all
            .iter()
            .filter_map(|lrp| lrp.status.as_ref()?.cell_name.clone());
        cells.filter(|cell| cell == "b").count()
    };
    assert_eq!(on_b(&once), 1);

    flap(&stage).await?;
    stage.reason(&["b"], "HeldDown").await?;
    let status = stage.status("b").await?;
    assert_eq!(status.flaps, Some(2));
    let until = status.held_down_until.ok_or("it is held down")?.0;
    let left = Duration::try_from(until.duration_since(Timestamp::now()))?;
    assert!(
        left > Duration::from_secs(20) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    let shown = stage.site.cluster.kubectl(&["get", "cell", "b"]).await?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("HeldDown"), "{shown}");
    // A controller that has not seen it flap knows it too.
    stage.site.kill_controller().await;
    stage.site.start_controller(&OFTEN).await?;
    stage
        .site
        .desire(&objects::sleepers("meanwhile", 2))
        .await?;
    stage
        .site
        .running("meanwhile", 2, |cell| cell == "a")
        .await?;
    assert!(
        Timestamp::now() < until,
        "this machine is too slow for this test"
    );

    stage.reason(&["b"], "PresenceHeld").await?;
    assert!(Timestamp::now() >= until);
    assert_eq!(stage.status("b").await?.held_down_until, None);
    stage.site.desire(&objects::sleepers("after", 2)).await?;
    let after = stage.site.running("after", 2, |_| true).await?;
    assert_eq!(on_b(&after), 1);
    Ok(())
}
