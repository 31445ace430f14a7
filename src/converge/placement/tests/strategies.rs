//! Random Cells and random work.

use super::*;
use crate::converge::neighbours::{Namespaces, PodNeeds};
use crate::converge::node::{Expression, NodeNeeds, Operator, Taint, TaintEffect, Toleration};

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

/// Where a node stands; some have no such label.
fn rack() -> impl Strategy<Value = Option<(String, String)>> {
    let rack = prop_oneof![3 => Just(Some("r1")), 3 => Just(Some("r2")), 1 => Just(None)];
    rack.prop_map(|rack| rack.map(|rack| ("rack".to_owned(), rack.to_owned())))
}

fn node() -> impl Strategy<Value = NodeRecord> {
    let label = prop_oneof![Just("ssd"), Just("hdd")];
    (label, rack(), 0..4u8).prop_map(|(disk, rack, tainted)| NodeRecord {
        labels: [("disk".to_owned(), disk.to_owned())]
            .into_iter()
            .chain(rack)
            .collect(),
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
                let (pods, standing, mut node): (bool, Standing, NodeRecord) = ground;
                let name = format!("cell-{n}");
                node.labels.insert("host".into(), name.clone());
                Cell {
                    name,
                    zone: format!("z{zone}"),
                    executor: match pods {
                        true => ExecutorKind::Pods,
                        false => ExecutorKind::Process,
                    },
                    required,
                    optional,
                    cordoned: cordoned == 0,
                    rests: cordoned == 1,
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

/// Names of Cells that gave the work back; most have none.
fn avoid() -> impl Strategy<Value = Vec<String>> {
    let names: Vec<String> = (0..9).map(|n| format!("cell-{n}")).collect();
    let some = proptest::sample::subsequence(names, 1..=3).prop_shuffle();
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

fn app() -> impl Strategy<Value = BTreeMap<String, String>> {
    let app = prop_oneof![Just("a"), Just("b")];
    app.prop_map(|app| BTreeMap::from([("app".to_owned(), app.to_owned())]))
}

fn terms() -> impl Strategy<Value = Vec<PodTerm>> {
    let topology = prop_oneof![4 => Just("host"), 4 => Just("rack"), 1 => Just("room")];
    let namespaces = prop_oneof![
        3 => Just(Namespaces::Own),
        1 => Just(Namespaces::All),
        1 => Just(Namespaces::These(vec!["other".into()])),
    ];
    let term = (topology, 0..5u8, namespaces).prop_map(|(topology, selector, namespaces)| {
        let is = |app: &str| Expression {
            key: "app".into(),
            operator: Operator::In,
            values: vec![app.to_owned()],
        };
        let ours = Expression {
            key: crate::api::LABEL_DESIRED_LRP.into(),
            operator: Operator::Exists,
            values: Vec::new(),
        };
        PodTerm {
            topology: topology.into(),
            selector: match selector {
                0 => None,
                1 => Some(Vec::new()),
                2 => Some(vec![is("a")]),
                3 => Some(vec![is("b")]),
                _ => Some(vec![ours]),
            },
            namespaces,
        }
    });
    // Most have none.
    prop_oneof![4 => Just(Vec::new()), 1 => proptest::collection::vec(term, 1..3)]
}

/// The labels of a process and what it asks of the Pods near it.
fn likings() -> impl Strategy<Value = (BTreeMap<String, String>, PodNeeds)> {
    let needs = (terms(), terms()).prop_map(|(near, apart)| PodNeeds { near, apart });
    (app(), needs)
}

/// Pods that are there, on nodes of Cells and on others.
pub(super) fn others() -> impl Strategy<Value = Vec<Other>> {
    let namespace = prop_oneof![3 => Just("default"), 1 => Just("other")];
    let of = prop_oneof![Just(None), (1..4u8, 0..30i32).prop_map(Some)];
    let other = (namespace, app(), of, terms(), rack(), 0..9usize);
    proptest::collection::vec(other, 0..6).prop_map(|others| {
        let make = |(namespace, labels, of, apart, rack, host)| {
            let host = ("host".to_owned(), format!("cell-{host}"));
            let of: Option<(u8, i32)> = of;
            let namespace: &str = namespace;
            let labels: BTreeMap<String, String> = labels;
            Other {
                namespace: namespace.to_owned(),
                labels,
                of: of.map(|(process, index)| (format!("p{process}"), index)),
                apart,
                node: NodeRecord {
                    labels: [host].into_iter().chain(rack).collect(),
                    ..NodeRecord::default()
                },
            }
        };
        others.into_iter().map(make).collect()
    })
}

pub(super) fn asks() -> impl Strategy<Value = Vec<Asked>> {
    let ask = (
        0..4usize,
        resources(5),
        tags(),
        0..20usize,
        needs(),
        avoid(),
    );
    let likings = proptest::collection::vec(likings(), 4);
    let asks = proptest::collection::vec(ask, 0..30);
    (asks, likings).prop_map(|(asks, likings): (_, Vec<(_, PodNeeds)>)| {
        let make = |(n, (process, resources, tags, refused, node, avoid)): (usize, _)| {
            let process: usize = process;
            let (labels, pods) = likings[process].clone();
            let work = match process {
                0 => Work::Task(Key::new("default", format!("t{n}"))),
                process => lrp(&format!("p{process}"), n as i32),
            };
            let process_refusal = (refused <= 1).then(|| "can't give: volumes".to_owned());
            let pods_refusal = matches!(refused, 1 | 2).then(|| "no image".to_owned());
            let demand = Demand {
                resources,
                tags,
                process_refusal,
                pods_refusal,
                node,
                pods,
                labels,
                scheduler: None,
            };
            Asked {
                avoid,
                ..asked(work, demand)
            }
        };
        asks.into_iter().enumerate().map(make).collect()
    })
}
