//! `diego check`: does an installation work? Asked by people after an installation, and by `helm test`.
//!
//! Each question is asked again until it is answered well or the time is up; what is wrong is printed with a remedy.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::{Client, Config, ResourceExt};

use crate::api::conditions::{self, READY};
use crate::api::{Cell, CellState};
use crate::client::{self, bounded};
use crate::controller::leader;

/// How long to wait before a question is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is asked of an installation.
#[derive(Debug, Clone)]
pub struct Questions {
    /// The namespace of the leader election; `None` where one controller runs without it.
    pub leader_namespace: Option<String>,
    /// How many Cells must be Ready at least.
    pub ready_cells: usize,
    /// How long a good answer is waited for.
    pub wait: Duration,
}

/// An answer: what is well, or what is wrong and the remedy.
type Answer = Result<String, String>;

/// Asks, and prints each answer as it comes.
///
/// # Errors
/// How many answers were bad.
pub async fn run(config: &Config, client: &Client, questions: &Questions) -> Result<(), String> {
    let until = Instant::now() + questions.wait;
    let mut bad = 0;
    let mut tell = |answer: Answer| match answer {
        Ok(well) => println!("√ {well}"),
        Err(wrong) => {
            bad += 1;
            println!("× {wrong}");
        }
    };
    let served = ask(until, async || {
        client::check(config, client)
            .await
            .map(|()| "the API server answers and serves the CRDs".to_owned())
            .map_err(|error| error.to_string())
    });
    tell(served.await);
    if let Some(namespace) = &questions.leader_namespace {
        let leases = Api::<Lease>::namespaced(client.clone(), namespace);
        let mut first = None;
        tell(
            ask(until, async || {
                let lease = bounded(leases.get_opt(leader::NAME)).await;
                let lease =
                    lease.map_err(|error| format!("the leader's Lease can't be read: {error}"))?;
                leads(&mut first, lease.as_ref(), namespace)
            })
            .await,
        );
    }
    let cells = Api::<Cell>::all(client.clone());
    tell(
        ask(until, async || {
            let cells = bounded(cells.list(&ListParams::default())).await;
            let cells = cells.map_err(|error| format!("the Cells can't be listed: {error}"))?;
            enough_cells(&cells.items, questions.ready_cells)
        })
        .await,
    );
    match bad {
        0 => Ok(()),
        1 => Err("1 check failed".into()),
        many => Err(format!("{many} checks failed")),
    }
}

async fn ask(until: Instant, mut question: impl AsyncFnMut() -> Answer) -> Answer {
    loop {
        let answer = question().await;
        if answer.is_ok() || Instant::now() >= until {
            return answer;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Somebody leads who is alive: its Lease changes while it is looked at. No wall clocks are compared.
fn leads(first: &mut Option<String>, lease: Option<&Lease>, namespace: &str) -> Answer {
    let remedy = format!(
        "look at the controller's log: kubectl logs -n {namespace} -l app.kubernetes.io/component=controller"
    );
    let holder = lease
        .and_then(|lease| lease.spec.as_ref()?.holder_identity.clone())
        .filter(|holder| !holder.is_empty());
    let (Some(lease), Some(holder)) = (lease, holder) else {
        return Err(format!(
            "no controller leads (Lease {namespace}/{}); {remedy}",
            leader::NAME
        ));
    };
    let version = lease.resource_version().unwrap_or_default();
    match first {
        Some(seen) if *seen != version => Ok(format!("a controller leads: {holder}")),
        Some(_) => Err(format!(
            "the leader {holder} does not renew its Lease {namespace}/{}; {remedy}",
            leader::NAME
        )),
        None => {
            *first = Some(version);
            Err(format!(
                "the leader {holder} was looked at once only; give it time with --wait-seconds"
            ))
        }
    }
}

/// At least so many Cells are Present and Ready. Names those that are not.
fn enough_cells(cells: &[Cell], wanted: usize) -> Answer {
    let ready = |cell: &&Cell| {
        cell.status.as_ref().is_some_and(|status| {
            status.state == Some(CellState::Present)
                && conditions::get(&status.conditions, READY)
                    .is_some_and(|ready| ready.status == "True")
        })
    };
    let count = cells.iter().filter(ready).count();
    let mut text = format!("{count} of {} Cells are Ready", cells.len());
    if count >= wanted {
        return Ok(text);
    }
    let _ = write!(text, ", wanted are {wanted}");
    for cell in cells.iter().filter(|cell| !ready(cell)) {
        let _ = write!(text, "; see kubectl describe cell {}", cell.name_any());
    }
    if cells.is_empty() {
        text.push_str("; no rep has registered: look at the reps' logs");
    }
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Truth;
    use crate::api::{CellSpec, CellStatus};
    use k8s_openapi::jiff::Timestamp;

    fn cell(name: &str, state: CellState, ready: Truth) -> Cell {
        let mut cell = Cell::new(name, CellSpec::default());
        let mut status = CellStatus {
            state: Some(state),
            ..CellStatus::default()
        };
        conditions::set(
            &mut status.conditions,
            READY,
            ready,
            "Test",
            "",
            None,
            Timestamp::UNIX_EPOCH,
        );
        cell.status = Some(status);
        cell
    }

    #[test]
    fn cells_count_when_present_and_ready() {
        let cells = [
            cell("a", CellState::Present, Truth::True),
            cell("b", CellState::Missing, Truth::False),
        ];
        assert_eq!(enough_cells(&cells, 1), Ok("1 of 2 Cells are Ready".into()));
        let wrong = enough_cells(&cells, 2).expect_err("one is missing");
        assert!(
            wrong.contains("wanted are 2; see kubectl describe cell b"),
            "{wrong}"
        );
        let none = enough_cells(&[], 1).expect_err("there is none");
        assert!(none.contains("no rep has registered"), "{none}");
    }

    #[test]
    fn a_leader_must_be_seen_renewing() {
        let lease = |version: &str, holder: &str| Lease {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                resource_version: Some(version.into()),
                ..Default::default()
            },
            spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
                holder_identity: Some(holder.into()),
                ..Default::default()
            }),
        };
        let mut first = None;
        assert!(leads(&mut first, None, "ns").is_err());
        assert!(leads(&mut first, Some(&lease("1", "")), "ns").is_err());
        assert!(leads(&mut first, Some(&lease("1", "a")), "ns").is_err());
        let stuck = leads(&mut first, Some(&lease("1", "a")), "ns").expect_err("no renewal");
        assert!(stuck.contains("does not renew"), "{stuck}");
        assert_eq!(
            leads(&mut first, Some(&lease("2", "a")), "ns"),
            Ok("a controller leads: a".into())
        );
    }
}
