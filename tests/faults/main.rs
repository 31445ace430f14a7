//! The fault matrix: every row breaks something on real processes, and an outside observer says what was not kept.
//!
//! `make faults` runs all rows; `FAULTS=15,16 cargo test --test faults` picks some, `FAULTS=leases,1,4` with presences in
//! Leases alone; without it a short subset runs. The
//! table in `docs/failures.md` is generated from the rows and from what the last `make faults` measured.

#[path = "../support/mod.rs"]
mod support;

mod between;
mod cable;
mod cgroup;
mod clock;
mod fleet;
mod instance;
mod names;
mod network;
mod observer;
mod renewals;
mod report;
mod row;
mod rows;
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use row::{Figures, Row, Run, Store, Tried};
use stage::Stage;
use support::Failure;

/// No row takes so long.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, log] = &args[..]
        && word == "instance"
    {
        return told(instance::run(log.as_ref()).map(|()| true));
    }
    if args == ["clock"] {
        return told(clock::print().map(|()| true));
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    told(start(&args))
}

fn told(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[String]) -> Result<bool, Failure> {
    let rows = rows::all();
    // What needs no server comes first.
    let logs = observer::examples::show()?;
    println!("the observer complains of {logs} logs that break an invariant, and of no good one");
    report::whole(&rows)?;
    if args.iter().any(|arg| arg == "--write") {
        report::write(&rows)?;
        return Ok(true);
    }
    report::up_to_date(&rows)?;
    let (picked, only) = pick(&rows, args)?;
    if picked.is_empty() {
        return Ok(true);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let results = runtime.block_on(play(&picked, only))?;
    report::print(&results);
    // The short subset leaves the figures of the last `make faults` alone.
    if std::env::var_os("FAULTS").is_some() {
        report::keep(&results)?;
        report::write(&rows)?;
    }
    Ok(results.iter().all(|result| result.outcome.is_ok()))
}

/// Those of `FAULTS`, or the short subset; of these, those that the arguments name as cargo's tests are named.
fn pick<'a>(rows: &'a [Row], args: &[String]) -> Result<(Vec<&'a Row>, Option<Store>), Failure> {
    let wanted = std::env::var("FAULTS").unwrap_or_default();
    let (mut numbers, mut only) = (Vec::new(), None);
    if !wanted.is_empty() && !wanted.eq_ignore_ascii_case("all") {
        for word in wanted.split(',') {
            let word = word.trim();
            let stores = [Store::Etcd, Store::Leases].into_iter();
            let mut named = stores.filter(|store| store.to_string().eq_ignore_ascii_case(word));
            if let Some(store) = named.next() {
                only = Some(store);
                continue;
            }
            let number: u32 = word.parse().map_err(|_| {
                format!("FAULTS={wanted}: write `all`, or numbers such as 15,16, and `etcd` or `leases` for that store alone")
            })?;
            let here = |row: &&Row| row.number == number && matches!(row.tried, Tried::Here { .. });
            if !rows.iter().any(|row| here(&row)) {
                return Err(format!(
                    "FAULTS={wanted}: row {number} is not made here; docs/failures.md says why"
                )
                .into());
            }
            numbers.push(number);
        }
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let picked = rows.iter().filter(|row| {
        let here = matches!(row.tried, Tried::Here { .. });
        let is_short = matches!(row.tried, Tried::Here { short: true, .. });
        let in_set = match (&*wanted, &numbers[..]) {
            ("", _) => is_short,
            (_, []) => here,
            (_, numbers) => here && numbers.contains(&row.number),
        };
        let named = |filter: &&String| row.fault.contains(filter.as_str());
        in_set && (filters.is_empty() || filters.iter().any(named))
    });
    Ok((picked.collect(), only))
}

/// What came of a row.
pub struct Played<'a> {
    /// Which row.
    pub row: &'a Row,
    /// Where the presences were.
    pub store: Store,
    /// How long it took, what it sets up included.
    pub took: Duration,
    /// What it measured, or how it failed.
    pub outcome: Result<Figures, String>,
}

async fn play<'a>(rows: &[&'a Row], only: Option<Store>) -> Result<Vec<Played<'a>>, Failure> {
    let mut stage = Stage::open().await?;
    let mut results = Vec::new();
    let plays = rows.iter().flat_map(|row| {
        let stores = rows::stores(row).iter();
        let stores = stores.filter(move |store| only.is_none_or(|only| only == **store));
        stores.map(move |store| (*row, *store))
    });
    for (row, store) in plays {
        let Tried::Here { run, .. } = &row.tried else {
            continue;
        };
        println!("row {:2}: {} ({store}) ...", row.number, row.fault);
        stage.store = store;
        let began = Instant::now();
        let outcome = match tokio::time::timeout(PATIENCE, one(&mut stage, *run)).await {
            Ok(outcome) => outcome.map_err(|failure| failure.to_string()),
            Err(_) => Err(format!("not over within {PATIENCE:?}")),
        };
        let took = began.elapsed();
        match &outcome {
            Ok(figures) => println!(
                "row {:2}: passed in {took:.1?}. {}",
                row.number, figures.note
            ),
            Err(failure) => {
                println!("row {:2}: FAILED in {took:.1?}: {failure}", row.number);
                println!("{}", stage.site.picture().await);
                // Whatever it left broken is not the next row's.
                stage = Stage::open().await?;
            }
        }
        results.push(Played {
            row,
            store,
            took,
            outcome,
        });
    }
    Ok(results)
}

async fn one(stage: &mut Stage, run: Run) -> Result<Figures, Failure> {
    stage.fresh().await?;
    stage.timed();
    let figures = run(stage).await?;
    stage.conclude().await?;
    let within = stage.timed();
    Ok(Figures { within, ..figures })
}
