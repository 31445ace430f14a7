//! What the environment asks for.

use std::str::FromStr;

use crate::scale::plan::{Kind, Plan, Row, Store};
use crate::support::Failure;

/// The runs that `SIZE` names, smallest first, with the rows that `ONLY` names.
pub fn plans() -> Result<Vec<Plan>, Failure> {
    let size = std::env::var("SIZE").unwrap_or_else(|_| "small".into());
    let only = only()?;
    let mut plans = Plan::named(&size)?;
    for plan in &mut plans {
        plan.rows.retain(|row| only.contains(row));
        plan.kills = number("KILLS", plan.kills)?;
        plan.sync = number("SYNC_SECONDS", plan.sync)?;
        plan.ttl = number("TTL", plan.ttl)?;
        plan.minutes = number("MINUTES", plan.minutes)?;
        plan.store = match std::env::var("STORE").as_deref() {
            Err(_) => plan.store,
            Ok("etcd") => Store::Etcd,
            Ok("kubernetes") => Store::Kubernetes,
            Ok(other) => {
                return Err(format!("STORE={other} is neither etcd nor kubernetes").into());
            }
        };
        plan.cells = number("CELLS", plan.cells)?;
        if plan.kind != Kind::Presence {
            plan.per_cell = number("INSTANCES", plan.per_cell)?;
        }
    }
    plans.retain(|plan| !plan.rows.is_empty());
    // With a number of their own they are all the same.
    if std::env::var("CELLS").is_ok() || std::env::var("TTL").is_ok() {
        let mut last: Vec<Plan> = Vec::new();
        for plan in plans {
            last.retain(|other| {
                let same = (other.cells, other.ttl) == (plan.cells, plan.ttl);
                !same || other.rows != plan.rows
            });
            last.push(plan);
        }
        plans = last;
    }
    plans.iter().try_for_each(check)?;
    Ok(plans)
}

/// The rows of `ONLY`, or all.
fn only() -> Result<Vec<Row>, Failure> {
    let Ok(only) = std::env::var("ONLY") else {
        return Ok(Row::ALL.map(|(_, row)| row).into());
    };
    let row = |name: &str| {
        let found = Row::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, row)| row).ok_or_else(|| {
            let known = Row::ALL.map(|(known, _)| known).join(", ");
            Failure::from(format!(
                "ONLY={only}: {name} is no row: choose from {known}, separated by commas"
            ))
        })
    };
    only.split(',').map(row).collect()
}

/// Whether the numbers go together.
fn check(plan: &Plan) -> Result<(), Failure> {
    if plan.ttl <= 0.0 || plan.minutes <= 0.0 {
        return Err("TTL and MINUTES must be greater than 0".into());
    }
    if plan.kind == Kind::Few {
        if plan.cells < 2 || plan.per_cell == 0 {
            return Err("CELLS must be at least 2 and INSTANCES at least 1: what one Cell loses runs on the others".into());
        }
        return Ok(());
    }
    plan.whole_ttl()?;
    if plan.cells < 9 {
        return Err("CELLS must be at least 9: there are three zones, and Cells must be left when one is lost".into());
    }
    if plan.kind == Kind::Presence {
        return Ok(());
    }
    if plan.per_cell == 0 {
        return Err("INSTANCES must be greater than 0".into());
    }
    if plan.kills == 0 || plan.kills * 4 > plan.cells {
        let (kills, cells) = (plan.kills, plan.cells);
        return Err(format!("KILLS={kills} must be between 1 and a quarter of {cells} Cells: the others have no room for the work of more").into());
    }
    Ok(())
}

/// The number in an environment variable.
fn number<T: FromStr>(name: &str, default: T) -> Result<T, Failure> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(format!("{name}={text} is not a number").into()),
        },
        Err(_) => Ok(default),
    }
}
