//! The table: at the end of a run, and in `docs/failures.md`, with what was measured last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Played;
use crate::observer::facts::Within;
use crate::row::{Protection, Row, Store, Tried};
use crate::rows::stores;
use crate::support::Failure;

/// How many rows the matrix has.
const ROWS: u32 = 50;

/// What was measured of a row, kept beside the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// The day.
    day: String,
    /// Whether it passed.
    passed: bool,
    /// How long the row took, in seconds.
    seconds: f64,
    /// From the fault to the start of each replacement, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    away: Vec<f64>,
    /// What that may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
    /// What else it told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
    /// The same with presences in Leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leases: Option<Box<Measured>>,
}

impl Measured {
    /// The greatest time and what it may be, where the row has both.
    fn timed(&self) -> Option<(f64, Within)> {
        let most = self.away.iter().copied().reduce(f64::max);
        most.zip(self.within)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn measured_file() -> PathBuf {
    root().join("tests/faults/measured.json")
}

fn document() -> PathBuf {
    root().join("docs/failures.md")
}

fn measured() -> Result<BTreeMap<u32, Measured>, Failure> {
    match std::fs::read(measured_file()) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// Looks that every row of the matrix is there, once.
pub fn whole(rows: &[Row]) -> Result<(), Failure> {
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    if numbers == (1..=ROWS).collect::<Vec<_>>() {
        return Ok(());
    }
    Err(format!("the rows must be 1 to {ROWS} in order, each once: {numbers:?}").into())
}

/// Looks that the document is what the rows make of it.
pub fn up_to_date(rows: &[Row]) -> Result<(), Failure> {
    let written = std::fs::read_to_string(document()).unwrap_or_default();
    if written == page(rows)? {
        return Ok(());
    }
    Err("docs/failures.md differs from the rows in tests/faults: run `cargo test --test faults -- --write` and commit it".into())
}

/// Writes the document.
pub fn write(rows: &[Row]) -> Result<(), Failure> {
    Ok(std::fs::write(document(), page(rows)?)?)
}

/// Keeps what was measured.
pub fn keep(results: &[Played]) -> Result<(), Failure> {
    let mut all = measured()?;
    for result in results {
        let round = |seconds: f64| (seconds * 100.0).round() / 100.0;
        let figures = result.outcome.as_ref().ok();
        let entry = Measured {
            day: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            passed: figures.is_some(),
            seconds: round(result.took.as_secs_f64()),
            away: figures.map_or_else(Vec::new, |figures| {
                figures.away.iter().copied().map(round).collect()
            }),
            within: figures.and_then(|figures| figures.within),
            note: figures.map_or_else(String::new, |figures| figures.note.clone()),
            leases: None,
        };
        let known = all.remove(&result.row.number);
        let entry = match (result.store, known) {
            (Store::Etcd, known) => Measured {
                leases: known.and_then(|known| known.leases),
                ..entry
            },
            (Store::Leases, Some(known)) => Measured {
                leases: Some(Box::new(entry)),
                ..known
            },
            // A row is made with etcd first.
            (Store::Leases, None) => continue,
        };
        all.insert(result.row.number, entry);
    }
    let text = serde_json::to_string_pretty(&all)?;
    Ok(std::fs::write(measured_file(), text + "\n")?)
}

/// p50, p99 and greatest of these, and how many there are.
fn quantiles(away: &[f64]) -> Option<String> {
    let mut sorted = away.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    };
    let (p50, p99, most) = (at(0.5)?, at(0.99)?, sorted.last()?);
    Some(format!(
        "{p50:.2} / {p99:.2} / {most:.2} ({})",
        sorted.len()
    ))
}

/// Prints the table and the sum.
pub fn print(results: &[Played]) {
    println!("\n row   took  store   away p50 / p99 / max (n), s   result  fault");
    for result in results {
        let away = result.outcome.as_ref().ok();
        let away = away.and_then(|figures| quantiles(&figures.away));
        println!(
            "{:4} {:5.1}s  {:7} {:30} {:7} {}",
            result.row.number,
            result.took.as_secs_f64(),
            result.store.to_string(),
            away.unwrap_or_else(|| "-".into()),
            if result.outcome.is_ok() {
                "passed"
            } else {
                "FAILED"
            },
            result.row.fault,
        );
    }
    let failed = results
        .iter()
        .filter(|result| result.outcome.is_err())
        .count();
    let took: Duration = results.iter().map(|result| result.took).sum();
    println!(
        "\nall rows together: {:.1} minutes",
        took.as_secs_f64() / 60.0
    );
    println!("{} passed, {failed} failed", results.len() - failed);
}

/// The document.
fn page(rows: &[Row]) -> Result<String, Failure> {
    let measured = measured()?;
    let mut table = String::new();
    let (mut lines, mut others) = (String::new(), String::new());
    let (mut seen, mut foreign) = (0, 0);
    let (mut timed, mut kept, mut twice) = (0, 0, 0);
    for row in rows {
        let Row {
            number,
            fault,
            promise,
            tried,
        } = row;
        let on_leases = stores(row).contains(&Store::Leases);
        let (how, etcd, leases) = match tried {
            Tried::Here {
                injected,
                protection,
                ..
            } => {
                let text = match protection {
                    Protection::Seen { without, said } => {
                        seen += 1;
                        format!("{without}. Seen to fail without it: {said}.")
                    }
                    Protection::NotOurs { by, said } => {
                        foreign += 1;
                        format!("nothing of ours: {by}. {said}.")
                    }
                };
                lines.push_str(&format!("| {number} | {text} |\n"));
                let measured = measured.get(number);
                let leases = measured.and_then(|one| one.leases.as_deref());
                for one in [measured, leases.filter(|_| on_leases)] {
                    if let Some((most, within)) = one.and_then(Measured::timed) {
                        timed += 1;
                        kept += u32::from(most <= within.promised.as_secs_f64());
                    }
                }
                let leases = if on_leases {
                    twice += 1;
                    last(leases)
                } else {
                    "-".into()
                };
                (*injected, last(measured), leases)
            }
            Tried::Elsewhere {
                tests,
                without,
                said,
            } => {
                others.push_str(&format!(
                    "| {number} | {tests} | {without}. Seen to fail without it: {said}. |\n"
                ));
                ("by other tests, below", "-".into(), "-".into())
            }
        };
        table.push_str(&format!(
            "| {number} | {fault} | {promise} | {how} | {etcd} | {leases} |\n"
        ));
    }
    let here = seen + foreign;
    Ok(format!(
        "{HEAD}
{here} of {ROWS} rows are made by `make faults`, {twice} of them twice: with presences in etcd, and in Leases of the API server
(`--presence kubernetes`). The others are made by other tests. {seen} rows of `make faults` were seen to fail without their
protection; {foreign} rest on what etcd or Linux do by themselves.

{COVERED}
{TABLE}{table}
The greatest time was within the promised figure alone, without the allowance, in {kept} of the {timed} measurements that have
one.

{PROTECTION}{lines}
{OTHERS}{others}"
    ))
}

fn last(measured: Option<&Measured>) -> String {
    let Some(measured) = measured else {
        return "not measured yet".into();
    };
    let mut parts = Vec::new();
    if !measured.passed {
        parts.push("FAILED".to_owned());
    }
    parts.extend(quantiles(&measured.away));
    if let Some((_, within)) = measured.timed() {
        parts.push(format!("within {within}"));
    }
    if !measured.note.is_empty() {
        parts.push(measured.note.clone());
    }
    if parts.is_empty() {
        parts.push("kept".into());
    }
    format!("{}; {}", parts.join("; "), measured.day)
}

const HEAD: &str = "# What happens when something fails

<!-- Generated from tests/faults: `make faults` measures and writes it, `cargo test --test faults -- --write` writes it. -->

Each row breaks something on real processes: API server, etcd, controllers, reps and what they run. An observer of its own,
which the programs know nothing of, writes down every start and end of a process on one clock (CLOCK_MONOTONIC), every write
to an ActualLRP, Task or Cell, and every presence that comes or goes. After each row it checks:

| | |
| --- | --- |
| S1 | one record per slot, and no instance guid that runs twice |
| S2 | a Task starts at most once; its end never changes |
| S3 | no Cell is given up, no Claimed or Running instance moved or replaced, and no Task failed for a Cell whose presence was there; an instance that ended, crashed, was given back or evacuated is another matter |
| S4 | epochs only grow, in Cells and in what is placed on them |
| S5 | never two routable instances of one index |
| S6 | with `missingCellPolicy: Strict` never two running processes of one index; most rows run such instances, one on each Cell |
| S7 | no record is written 30 times after one fault, or 60 times within 15 s |
| L1 | within 55 s all is as desired: each wanted instance runs once, with a process, and nothing else runs |
| L2 | where a row gives a time: all run elsewhere within the promised figure and its allowance |

Before any row runs, the observer is shown logs that break each of them, and must complain.
";

const COVERED: &str = "## Stores and executors

All rows run with the executor `Process`. With presences in etcd no row needs the API server for a presence; with Leases
whatever takes the API server away takes the presence store away, too, so that the rows that break etcd itself (15 to 22) and
those in which the two are cut off one without the other (9 to 12, 14) are made with etcd alone. Rows 23, 24, 36 and 50 could
be made with Leases, and are not. What a frozen or full API
server does to presences in Leases is shown by tests/presence/kubernetes.rs.

With the executor `Pods` the same controller and the same rules decide; kubelets, containers and nodes are real in these tests
(`make e2e`):

| test | what fails |
| --- | --- |
| tests/e2e/failures.rs: `work_outlives_nodes_and_control_planes` | a node and the leader die at once; a node is cut off and comes back; a node reboots within the TTL; the reps are replaced; the API server is away |
| tests/e2e/fencing.rs: `a_strict_instance_is_dead_before_it_is_replaced` | a node that runs Strict instances can't renew its presence: cut off, or with rep and kubelet stopped |
| tests/e2e/refusals.rs: `what_a_kubelet_takes_away_runs_elsewhere_and_has_not_crashed` | Pods are evicted, preempted and refused by their node |
| tests/e2e/refusals/hung.rs: `a_hung_container_runtime_moves_nothing_and_gets_no_new_work` | a container runtime hangs |
| tests/e2e/etcd.rs: `the_presence_outlives_a_member_and_its_node` | a member of the bundled etcd dies with its node |
| tests/e2e/lifecycle.rs: `the_work_runs_on_through_all_that_is_done_to_the_installation` | the installation is upgraded, rolled back, moved to another presence store, removed and installed again |
";

const TABLE: &str = "## Promises

Measured is the time from the fault to the start of each replacement's process: p50 / p99 / greatest, in seconds, and of how
many instances; then, as `within`, the promised figure + the allowance that L2 adds to it. The allowance is there because the
figure ends with the controller's decision: the start of the process comes after it, and all programs of the cluster and the
test share the machine. The presence TTL is 5 s unless the row says otherwise; the machine has two cores, and etcd does not sync its disk.

In the rows that name a proxy before etcd, that proxy is before the API server where presences are in Leases.

| # | fault | promise | how it is made | last measured, presences in etcd | last measured, presences in Leases |
| --- | --- | --- | --- | --- | --- |
";

const PROTECTION: &str = "## What protects, row by row

\"Seen to fail\" means: that line was taken out in a copy of the tree, and the row failed.

| # | protection |
| --- | --- |
";

const OTHERS: &str = "## Rows that other tests make, not `make faults`

| # | tests | protection |
| --- | --- | --- |
";
