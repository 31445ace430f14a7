//! The lines of a scenario about Cells that are nodes.

use std::collections::{HashMap, HashSet};

use diego_operator::api::template::Resources;
use diego_operator::api::{ExecutorKind, quantity};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::neighbours::{Namespaces, PodKin, PodNeeds, PodTerm};
use diego_operator::converge::node::{
    CellNode, Expression, NodeRecord, Operator, Taint, TaintEffect, Toleration,
};
use diego_operator::converge::world::CellRecord;

use super::read::{number, options};
use crate::world::Sandbox;

/// `node NAME [cpu=N] [memory=N] [pods=N] [labels=KEY:VALUE,...] [taint=KEY:VALUE:EFFECT] [not-ready] [cordoned]
/// [foreign-cpu=N] [foreign-memory=N] [foreign-pods=N]`: a Node, and what Pods of others take of it. From the first
/// one on all Nodes and Pods are listed.
pub fn node(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    let name = *words.first().ok_or("node needs a name")?;
    let options = options(&words[1..]);
    let read = |cpu: &str, memory: &str, defaults: (&str, &str)| -> Result<Resources, String> {
        Ok(Resources {
            cpu: quantity::millis(options.get(cpu).copied().unwrap_or(defaults.0))?,
            memory: quantity::bytes(options.get(memory).copied().unwrap_or(defaults.1))?,
            disk: 0,
        })
    };
    let allocatable = Resources {
        disk: 1 << 30,
        ..read("cpu", "memory", ("4", "1Gi"))?
    };
    let pods = options.get("pods").map_or(Ok(110), |text| number(text))?;
    let record = NodeRecord {
        uid: format!("node-{name}"),
        labels: pairs(&options, "labels")?.into_iter().collect(),
        unschedulable: options.contains_key("cordoned"),
        ready: !options.contains_key("not-ready"),
        taints: match options.get("taint") {
            Some(text) => vec![taint(text)?],
            None => Vec::new(),
        },
        allocatable,
        pods: pods as i32,
    };
    sandbox.world.put_node(name, record);
    let live: HashSet<String> = sandbox
        .world
        .nodes()
        .map(|(name, _)| name.clone())
        .collect();
    sandbox.world.end_node_list(&live);
    let foreign = number(options.get("foreign-pods").unwrap_or(&"0"))?;
    let resources = read("foreign-cpu", "foreign-memory", ("0", "0"))?;
    for n in 0..foreign.max(i64::from(resources != Resources::default())) {
        let uid = name
            .bytes()
            .fold(n as u128, |uid, byte| (uid << 8) + u128::from(byte));
        let takes = if n == 0 {
            resources
        } else {
            Resources::default()
        };
        let kin = PodKin::default();
        sandbox.world.put_foreign(uid, name, takes, kin);
    }
    sandbox.world.end_foreign_list(0);
    Ok(())
}

/// `pod NAME on=NODE app=NAME [apart=APP@LABEL]`: a Pod of somebody else.
pub fn pod(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    let name = *words.first().ok_or("pod needs a name")?;
    let options = options(&words[1..]);
    let node = options.get("on").ok_or("pod needs on=NODE")?;
    let labels = app(&options).into_iter().collect();
    let kin = PodKin::new("default", &labels, terms(&options, "apart")?);
    let world = &mut sandbox.world;
    world.put_foreign(uid(name), node, Resources::default(), kin);
    Ok(())
}

/// `gone pod NAME`
pub fn no_pod(sandbox: &mut Sandbox, name: &str) -> bool {
    sandbox.world.remove_foreign(uid(name))
}

fn uid(name: &str) -> u128 {
    name.bytes()
        .fold(1, |uid, byte| (uid << 8) + u128::from(byte))
}

fn app(options: &HashMap<&str, &str>) -> Option<(String, String)> {
    let name = options.get("app")?;
    Some(("app".to_owned(), (*name).to_owned()))
}

/// `APP@LABEL,...`: Pods of that app on nodes with the same value of that label.
fn terms(options: &HashMap<&str, &str>, name: &str) -> Result<Vec<PodTerm>, String> {
    let list = options.get(name).map(|text| text.split(','));
    list.into_iter()
        .flatten()
        .map(|term| {
            let (app, label) = term
                .split_once('@')
                .ok_or_else(|| format!("{term:?}: write APP@LABEL"))?;
            let is = Expression {
                key: "app".into(),
                operator: Operator::In,
                values: vec![app.to_owned()],
            };
            Ok(PodTerm {
                topology: label.to_owned(),
                selector: Some(vec![is]),
                namespaces: Namespaces::Own,
            })
        })
        .collect()
}

/// `no-node NAME`: it was removed from the cluster.
pub fn no_node(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    sandbox
        .world
        .remove_node(words.first().ok_or("no-node needs a name")?);
    Ok(())
}

/// `cell ... node=NAME`
pub fn stand_on(record: &mut CellRecord, options: &HashMap<&str, &str>) {
    if let Some(name) = options.get("node") {
        record.executor = ExecutorKind::Pods;
        record.node = Some(CellNode {
            name: (*name).to_owned(),
            ..CellNode::default()
        });
    }
}

/// `[cpu=N] [image] [no-image] [selector=KEY:VALUE,...] [tolerates=KEY:VALUE] [app=NAME] [near=APP@LABEL,...]
/// [apart=APP@LABEL,...] [scheduler=NAME]`: with `image` no process can run it, with `no-image` no Pod.
pub fn ask(demand: &mut Demand, options: &HashMap<&str, &str>) -> Result<(), String> {
    if let Some(cpu) = options.get("cpu") {
        demand.resources.cpu = quantity::millis(cpu)?;
    }
    if options.contains_key("image") {
        demand.process_refusal =
            Some("a Cell with executor Process can't give: the image's own command".into());
    }
    if options.contains_key("no-image") {
        demand.pods_refusal =
            Some("a Cell with executor Pods can't run it: image is not set".into());
    }
    demand.node.selector = pairs(options, "selector")?;
    for (key, value) in pairs(options, "tolerates")? {
        demand.node.tolerations.push(Toleration {
            key,
            value: Some(value),
            effect: None,
        });
    }
    demand.labels = app(options).into_iter().collect();
    demand.pods = PodNeeds {
        near: terms(options, "near")?,
        apart: terms(options, "apart")?,
    };
    demand.scheduler = options.get("scheduler").map(|name| (*name).to_owned());
    Ok(())
}

fn pairs(options: &HashMap<&str, &str>, name: &str) -> Result<Vec<(String, String)>, String> {
    let list = options.get(name).map(|text| text.split(','));
    list.into_iter()
        .flatten()
        .map(|pair| {
            let (key, value) = pair
                .split_once(':')
                .ok_or_else(|| format!("{pair:?}: write KEY:VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn taint(text: &str) -> Result<Taint, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [key, value, effect] = parts.as_slice() else {
        return Err(format!("{text:?}: write KEY:VALUE:EFFECT"));
    };
    Ok(Taint {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
        effect: TaintEffect::of(effect).ok_or_else(|| format!("unknown effect {effect:?}"))?,
    })
}
