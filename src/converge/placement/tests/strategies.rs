//! Random Cells and random work.

use super::*;
use crate::converge::node::{NodeNeeds, Taint, TaintEffect, Toleration};

fn tags() -> impl Strategy<Value = Vec<String>> {
    let some = proptest::sample::subsequence(vec!["arm", "gpu", "ssd"], 0..=3);
    // Most have none.
    prop_oneof![3 => Just(Vec::new()), 1 => some]
        .prop_map(|tags| tags.into_iter().map(str::to_owned).collect())
}

fn resources(most: i64) -> impl Strategy<Value = Resources> {
    (0..=most, 0..=most, 0..=most).prop_map(|(memory, disk, cpu)| Resources { memory, disk, cpu })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        1 => Just(Standing::NotRead),
        1 => Just(Standing::NotFound),
        1 => Just(Standing::NotReady),
        1 => Just(Standing::Unschedulable),
        5 => Just(Standing::Open),
    ]
}

fn node() -> impl Strategy<Value = NodeRecord> {
    let label = prop_oneof![Just("ssd"), Just("hdd")];
    (label, 0..4u8).prop_map(|(disk, tainted)| NodeRecord {
        labels: BTreeMap::from([("disk".to_owned(), disk.to_owned())]),
        taints: (tainted == 0)
            .then(|| Taint {
                key: "team".into(),
                value: "db".into(),
                effect: TaintEffect::NoSchedule,
            })
            .into_iter()
            .collect(),
        ..NodeRecord::default()
    })
}

fn needs() -> impl Strategy<Value = NodeNeeds> {
    (0..4u8, 0..3u8).prop_map(|(disk, tolerates)| NodeNeeds {
        selector: match disk {
            0 => vec![("disk".to_owned(), "ssd".to_owned())],
            _ => Vec::new(),
        },
        tolerations: match tolerates {
            0 => vec![Toleration::default()],
            _ => Vec::new(),
        },
        ..NodeNeeds::default()
    })
}

pub(super) fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let room = (
        resources(20),
        0..8i32,
        resources(6),
        0..3i32,
        0..3i32,
        0..2i32,
    )
        .prop_map(
            |(capacity, containers, used, used_containers, starting, tasks)| Room {
                capacity,
                counts_cpu: false,
                containers,
                used,
                used_containers,
                starting,
                tasks,
            },
        );
    let ground = (any::<bool>(), standing(), node());
    let cell = (0..3usize, ground, tags(), tags(), 0..8usize, room);
    proptest::collection::vec(cell, 0..9)
        .prop_map(|cells| {
            let make = |(n, (zone, ground, required, optional, cordoned, room)): (usize, _)| {
                let (pods, standing, node) = ground;
                Cell {
                    name: format!("cell-{n}"),
                    zone: format!("z{zone}"),
                    executor: match pods {
                        true => ExecutorKind::Pods,
                        false => ExecutorKind::Process,
                    },
                    required,
                    optional,
                    cordoned: cordoned == 0,
                    standing,
                    node,
                    room: Room {
                        counts_cpu: pods,
                        ..room
                    },
                }
            };
            cells.into_iter().enumerate().map(make).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

pub(super) fn asks() -> impl Strategy<Value = Vec<(Work, Demand)>> {
    let ask = (0..4usize, resources(5), tags(), 0..20usize, needs());
    proptest::collection::vec(ask, 0..30).prop_map(|asks| {
        let make = |(n, (process, resources, tags, refused, node)): (usize, _)| {
            let work = match process {
                0 => Work::Task(Key::new("default", format!("t{n}"))),
                process => lrp(&format!("p{process}"), n as i32),
            };
            let process_refusal = (refused <= 1).then(|| "can't give: volumes".to_owned());
            let pods_refusal = matches!(refused, 1 | 2).then(|| "no image".to_owned());
            (
                work,
                Demand {
                    resources,
                    tags,
                    process_refusal,
                    pods_refusal,
                    node,
                    scheduler: None,
                },
            )
        };
        asks.into_iter().enumerate().map(make).collect()
    })
}
