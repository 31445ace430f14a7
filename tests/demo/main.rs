//! `make demo`: a Cell is killed, and one sees its work run elsewhere about five seconds later; then the same
//! with the presence watch switched off. `make cluster` leaves the same installation running.

#[path = "../support/mod.rs"]
mod support;

mod probe;
mod recovery;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use recovery::{Recovery, kill_and_watch};
use stage::Stage;
use support::Failure;

/// The presence TTL of the demo's Cells, in seconds: the design's.
const TTL: u64 = 5;

/// The convergence interval, in seconds: the design's.
const INTERVAL: u64 = 30;

/// What is not recovered by then never will be.
const GIVE_UP: Duration = Duration::from_secs(2 * (TTL + INTERVAL));

#[tokio::main]
async fn main() -> ExitCode {
    let stay = std::env::args().any(|arg| arg == "--stay");
    let result = if stay {
        leave_running().await
    } else {
        demo().await
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is shown, in order. The last line is the first recovery's.
async fn demo() -> Result<ExitCode, Failure> {
    let mut stage = Stage::set(&[]).await?;
    stage.play("long").await?;
    stage.show().await?;

    println!("\n1. The presence watch sees it\n");
    let first = kill_and_watch(&mut stage, "long", GIVE_UP).await?;
    stage.settled().await?;
    stage.show().await?;
    stage.show_events(&first.cell).await?;

    println!("\n2. The watch is off: the periodic pass is the safety net\n");
    stage.clear().await?;
    stage.replace_cell(&first.cell).await?;
    stage
        .restart_controller(&["--disable-presence-watch"])
        .await?;
    stage.play("long-again").await?;
    let second = kill_and_watch(&mut stage, "long-again", GIVE_UP).await?;
    let by_resync = stage
        .site
        .metric("diego_cell_presence_expired_total{source=\"resync\"}")
        .await?;
    println!("\n  diego_cell_presence_expired_total{{source=\"resync\"}} {by_resync}");

    println!();
    judge("with the watch", &first, TTL as f64 + 1.2);
    judge("without it", &second, (TTL + INTERVAL + 2) as f64);
    println!("{}", first.summary(TTL));
    let well = first.complete() && second.complete() && by_resync == 1.0;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Holds a recovery against its aim.
fn judge(what: &str, recovery: &Recovery, aim: f64) {
    let took = recovery.took.as_secs_f64();
    let verdict = match (recovery.complete(), took <= aim) {
        (false, _) => "NOT recovered",
        (true, true) => "met",
        (true, false) => "missed",
    };
    println!("{what}: {took:.2} s, aim {aim:.1} s: {verdict}");
}

/// The same installation, for one's own kubectl, until Ctrl-C.
async fn leave_running() -> Result<ExitCode, Failure> {
    let stage = Stage::set(&[]).await?;
    stage.play("long").await?;
    stage.show().await?;
    println!("\nThe installation is running. In another terminal:\n");
    println!(
        "export KUBECONFIG={}",
        stage.site.cluster.kubeconfig().display()
    );
    println!("\nMetrics: {}", stage.site.metrics_address());
    println!("Logs and instances: {}", stage.site.dir().display());
    for (name, pid) in stage.site.rep_pids() {
        println!("Kill {name} and all it runs: kill -9 {pid}");
    }
    println!("Ctrl-C here stops everything.");
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}
