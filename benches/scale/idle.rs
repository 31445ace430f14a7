//! What it costs to find that nothing is to be done, and the wait until that is so.

use std::time::{Duration, Instant};

use diego_operator::api::CellState;
use serde::Serialize;

use super::meter::{self, Usage};
use super::plan::Plan;
use super::traffic::Traffic;
use crate::support::{Failure, site::Site};

/// So long no object of ours must change.
const QUIET: Duration = Duration::from_secs(2);

/// The cost of the convergence passes over everything.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// How many passes there were time for.
    pub passes: u32,
    /// Of one pass.
    pub usage: Vec<Usage>,
    /// Of one pass.
    pub traffic: Traffic,
}

impl Idle {
    /// Requests of the controller in one pass, about what it keeps watch over: reads, writes.
    pub fn requests(&self) -> (f64, f64) {
        let writes = self
            .traffic
            .by_controller(&["PATCH", "PUT", "POST", "DELETE"]);
        (self.traffic.by_controller(&["GET"]), writes)
    }

    /// CPU time of the controller in one pass, in seconds.
    pub fn cpu(&self) -> f64 {
        let controller = self.usage.iter().find(|one| one.program == "controller");
        controller.map_or(f64::NAN, |one| one.cpu_seconds)
    }
}

/// Lets so many convergence intervals pass.
pub async fn measure(site: &Site, plan: &Plan) -> Result<Idle, Failure> {
    let before = (meter::all(site, plan)?, Traffic::read(site).await?);
    let window = Duration::from_secs(plan.convergence) * plan.idle_passes;
    tokio::time::sleep(window).await;
    let passes = f64::from(plan.idle_passes);
    let mut usage = meter::since(&before.0, &meter::all(site, plan)?);
    for one in &mut usage {
        one.cpu_seconds /= passes;
    }
    Ok(Idle {
        passes: plan.idle_passes,
        usage,
        traffic: Traffic::read(site).await?.since(&before.1).divided(passes),
    })
}

/// Waits until all Cells are Present and nobody writes about our kinds any more.
pub async fn quiet(site: &Site, plan: &Plan) -> Result<(), Failure> {
    let deadline = Instant::now() + plan.patience();
    loop {
        let cells = site.cells().list(&Default::default()).await?;
        let states = cells.iter().filter_map(|cell| cell.status.as_ref()?.state);
        if states.filter(|state| *state == CellState::Present).count() == plan.cells {
            break;
        }
        if Instant::now() > deadline {
            return Err(late(plan, "all Cells are Present").into());
        }
        tokio::time::sleep(QUIET / 4).await;
    }
    settled(site, plan).await
}

/// Waits until nobody writes about our kinds any more.
pub async fn settled(site: &Site, plan: &Plan) -> Result<(), Failure> {
    let deadline = Instant::now() + plan.patience();
    let mut last = (Instant::now(), Traffic::read(site).await?.writes());
    while last.0.elapsed() < QUIET {
        if Instant::now() > deadline {
            return Err(late(plan, "nobody has anything to write").into());
        }
        tokio::time::sleep(QUIET / 4).await;
        let now = Traffic::read(site).await?.writes();
        if now != last.1 {
            last = (Instant::now(), now);
        }
    }
    Ok(())
}

fn late(plan: &Plan, what: &str) -> String {
    format!("not within {:?}: {what}", plan.patience())
}
