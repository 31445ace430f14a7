//! Pods that are to be near each other, or not: examples of each rule.

use super::*;
use crate::converge::neighbours::{Namespaces, PodNeeds};
use crate::converge::node::{Expression, Operator};

/// Cells that are nodes `a1`, `a2`, `b1`, on racks `a` and `b`.
fn racks() -> Vec<Cell> {
    ["a1", "a2", "b1"]
        .map(|name| {
            let mut cell = Cell::new(name, "z");
            cell.executor = ExecutorKind::Pods;
            cell.node = host(name);
            cell
        })
        .to_vec()
}

fn host(name: &str) -> NodeRecord {
    let labels = [("host", name), ("rack", &name[..1])];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    NodeRecord {
        labels: labels.map(owned).into(),
        ready: true,
        ..NodeRecord::default()
    }
}

fn app(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), name.to_owned())])
}

/// Pods of that app on the same `topology`.
fn term(topology: &str, name: &str) -> PodTerm {
    let is = Expression {
        key: "app".into(),
        operator: Operator::In,
        values: vec![name.into()],
    };
    PodTerm {
        topology: topology.into(),
        selector: Some(vec![is]),
        namespaces: Namespaces::Own,
    }
}

fn demand(name: &str, near: &[PodTerm], apart: &[PodTerm]) -> Demand {
    Demand {
        labels: app(name),
        pods: PodNeeds {
            near: near.to_vec(),
            apart: apart.to_vec(),
        },
        ..Demand::default()
    }
}

fn instances(process: &str, count: i32, demand: &Demand) -> Vec<Asked> {
    let one = |index| asked(lrp(process, index), demand.clone());
    (0..count).map(one).collect()
}

fn other(name: &str, on: &str, apart: &[PodTerm]) -> Other {
    Other {
        namespace: "default".into(),
        labels: app(name),
        of: None,
        apart: apart.to_vec(),
        node: host(on),
    }
}

fn placed_among(others: &[Other], asks: &[Asked]) -> Vec<String> {
    let (cells, there) = (racks(), BTreeMap::new());
    let auction = Auction::new(bidders(&cells), 0, Knobs::default()).among(residents(others));
    let outcomes = outcomes_of(auction, &there, asks);
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|error| error))
        .collect()
}

const NOWHERE: &str =
    "no cell satisfies the pod affinity and anti-affinity rules; 0/3 nodes are available: ";

#[test]
fn instances_that_must_not_be_near_each_other_spread_and_then_wait() {
    let web = demand("web", &[], &[term("host", "web")]);
    let mut expected = vec!["a1".to_owned(), "a2".into(), "b1".into()];
    expected.push(format!(
        "{NOWHERE}3 node(s) didn't match pod anti-affinity rules"
    ));
    assert_eq!(placed_among(&[], &instances("web", 4, &web)), expected);
    // By rack; and apart from a Pod of others.
    let web = demand("web", &[], &[term("rack", "web"), term("rack", "db")]);
    let outcomes = placed_among(&[other("db", "a2", &[])], &instances("web", 2, &web));
    let full = format!("{NOWHERE}3 node(s) didn't match pod anti-affinity rules");
    assert_eq!(outcomes, ["b1".to_owned(), full]);
}

#[test]
fn who_keeps_others_off_is_left_alone() {
    let alone = [other("db", "a1", &[term("rack", "web")])];
    let web = demand("web", &[], &[]);
    assert_eq!(
        placed_among(&alone, &instances("web", 2, &web)),
        ["b1", "b1"]
    );
    // Also one placed just now, by what asks for nothing.
    let db = demand("db", &[], &[term("rack", "web")]);
    let mut asks = instances("web", 1, &web);
    asks.extend(instances("db", 1, &db));
    asks.extend(instances("other", 1, &demand("other", &[], &[])));
    let late = asked(lrp("web", 1), web);
    asks.push(late);
    // The first web is on a1, so db goes to b1, and no more of web there.
    assert_eq!(placed_among(&[], &asks)[..2], ["a1", "b1"]);
    assert!(placed_among(&[], &asks)[3].starts_with('a'));
}

#[test]
fn what_asks_for_company_goes_where_it_is() {
    let web = demand("web", &[term("rack", "db")], &[]);
    let there = [other("db", "b1", &[])];
    assert_eq!(
        placed_among(&there, &instances("web", 2, &web)),
        ["b1", "b1"]
    );
    let nobody = placed_among(&[], &instances("web", 1, &web));
    assert_eq!(
        nobody,
        [format!(
            "{NOWHERE}3 node(s) didn't match pod affinity rules"
        )]
    );
    // In another namespace it is none.
    let elsewhere = Other {
        namespace: "other".into(),
        ..there[0].clone()
    };
    assert_eq!(
        placed_among(&[elsewhere], &instances("web", 1, &web)),
        nobody
    );
}

#[test]
fn the_first_of_those_that_ask_for_each_other_may_go_anywhere() {
    let web = demand("web", &[term("rack", "web")], &[]);
    let outcomes = placed_among(&[], &instances("web", 3, &web));
    assert_eq!(outcomes[0], "a1");
    assert!(
        outcomes.iter().all(|cell| cell.starts_with('a')),
        "{outcomes:?}"
    );
}

#[test]
fn what_a_slot_has_already_does_not_count_for_it() {
    let web = demand("web", &[], &[term("rack", "web")]);
    let mine = |index, on| Other {
        of: Some(("web".into(), index)),
        apart: web.pods.apart.clone(),
        ..other("web", on, &[])
    };
    let others = [mine(0, "a1"), mine(1, "b1")];
    let asks = [
        asked(lrp("web", 0), web.clone()),
        asked(lrp("web", 2), web.clone()),
    ];
    let outcomes = placed_among(&others, &asks);
    assert!(outcomes[0].starts_with('a'), "{outcomes:?}");
    assert!(outcomes[1].starts_with(NOWHERE), "{outcomes:?}");
}

/// Its labels are of another time, or somebody changed them.
#[test]
fn what_a_slot_has_already_does_not_count_for_it_whatever_its_labels() {
    let web = demand("web", &[], &[term("rack", "old")]);
    let there = [("a1", 0), ("b1", 1)].map(|(on, index)| Other {
        of: Some(("web".into(), index)),
        ..other("old", on, &[])
    });
    let outcomes = placed_among(&there, &[asked(lrp("web", 0), web)]);
    assert!(outcomes[0].starts_with('a'), "{outcomes:?}");
}
