//! The benchmark of scale. Read `run` for one run from the empty API server to the report.
//!
//! ```text
//! loader ──> API server: DesiredLRPs, ActualLRPs (Running)        observer: two watches, of instances and of presences
//! fleet  ──> presence store: a lease per Cell; answers as reps    meter: /proc, and the servers' own metrics
//! ```

mod executor;
mod few;
pub mod figure;
mod figures;
mod fleet;
mod idle;
mod leader;
mod loader;
mod loss;
pub mod machine;
mod meter;
mod numbers;
pub mod plan;
mod plot;
mod presence;
mod raw;
mod report;
mod rows;
mod run;
mod sights;
pub mod summary;
mod text;
mod traffic;
mod wrong;

use tokio_util::sync::CancellationToken;

use crate::support::Failure;
use plan::Plan;
use report::Report;

/// Runs all sizes; what was measured before a failure is in the report.
pub async fn measure(
    plans: &[Plan],
    cut: &CancellationToken,
) -> Result<(Report, Option<Failure>), Failure> {
    for plan in plans {
        machine::has_room(plan)?;
    }
    let mut report = Report::new(plans)?;
    for plan in plans {
        if cut.is_cancelled() {
            break;
        }
        let (results, failed) = run::run(plan, cut).await;
        report.figures.extend(figures::of(&results));
        report.runs.push(results);
        if failed.is_some() {
            return Ok((report, failed));
        }
    }
    Ok((report, None))
}
