//! What the environment asks for.

use std::str::FromStr;

use crate::scale::plan::{Plan, Store};
use crate::support::Failure;

/// The sizes that `SIZE` names, smallest first.
pub fn plans() -> Result<Vec<Plan>, Failure> {
    let size = std::env::var("SIZE").unwrap_or_else(|_| "small".into());
    let mut plans = Plan::named(&size)?;
    for plan in &mut plans {
        plan.kills = number("KILLS", plan.kills)?;
        plan.sync = number("SYNC_SECONDS", plan.sync)?;
        plan.ttl = number("TTL", plan.ttl)?;
        plan.store = match std::env::var("STORE").as_deref() {
            Err(_) | Ok("etcd") => Store::Etcd,
            Ok("kubernetes") => Store::Kubernetes,
            Ok(other) => {
                return Err(format!("STORE={other} is neither etcd nor kubernetes").into());
            }
        };
        plan.cells = number("CELLS", plan.cells)?;
        plan.per_cell = number("INSTANCES", plan.per_cell)?;
        check(plan)?;
    }
    // With a number of their own they are all the same.
    if std::env::var("CELLS").is_ok() {
        plans.drain(..plans.len() - 1);
    }
    Ok(plans)
}

/// Whether the numbers go together.
fn check(plan: &Plan) -> Result<(), Failure> {
    if plan.cells < 9 {
        return Err("CELLS must be at least 9: there are three zones, and Cells must be left when one is lost".into());
    }
    if plan.per_cell == 0 || plan.ttl == 0 {
        return Err("INSTANCES and TTL must be greater than 0".into());
    }
    if plan.kills * 4 > plan.cells {
        let (kills, cells) = (plan.kills, plan.cells);
        return Err(format!("KILLS={kills} is more than a quarter of {cells} Cells: the others have no room for the work of all of them").into());
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
