//! The reps, the presence store and the clocks.

use super::*;

#[test]
fn the_reps() {
    let with = |asked, ready| {
        move |facts: &mut Facts| facts.programs.daemon_sets = Ok(vec![daemon_set(asked, ready)])
    };
    breaks(
        with(0, 0),
        "daemon-set",
        Mark::Failure,
        &["no Node takes a rep"],
    );
    breaks(with(3, 0), "daemon-set", Mark::Failure, &["0 of 3"]);
    breaks(with(3, 2), "daemon-set", Mark::Warning, &["2 of 3"]);
    breaks(
        |facts| facts.programs.pods.as_mut().unwrap().push(rep_pod("c")),
        "nodes",
        Mark::Failure,
        &["no Cells: c"],
    );
    breaks(
        |facts| drop(facts.nodes.as_mut().unwrap().pop()),
        "nodes",
        Mark::Warning,
        &["Node is gone: b"],
    );
}

#[test]
fn the_presence_store() {
    let page = |text: &str| {
        vec![Page {
            pod: "controller-1".into(),
            text: Ok(text.into()),
        }]
    };
    let away = page("diego_presence_store_reachable 0\n");
    breaks(
        |facts| facts.pages = away,
        "presence-store",
        Mark::Failure,
        &[
            "can't be reached: controller-1",
            "DiegoPresenceStoreUnreachable",
        ],
    );
    // A standby may hear what the leader does not.
    let mut both =
        page("diego_presence_store_reachable 1\nleader_election_master_status{name=\"x\"} 0\n");
    both.extend(page(
        "diego_presence_store_reachable 0\nleader_election_master_status{name=\"x\"} 1\n",
    ));
    breaks(
        |facts| facts.pages = both,
        "presence-store",
        Mark::Failure,
        &[],
    );
    breaks(
        |facts| facts.pages.clear(),
        "presence-store",
        Mark::Warning,
        &["is not known"],
    );
    breaks(
        |facts| facts.pages[0].text = Err(no_right()),
        "presence-store",
        Mark::Warning,
        &["eve lacks the right", "diego_presence_store_reachable"],
    );
    let refused = Failure::Refused("401 no token".into());
    breaks(
        |facts| facts.pages[0].text = Err(refused),
        "presence-store",
        Mark::Warning,
        &["401 no token"],
    );
    let late = |facts: &mut Facts| {
        facts.presences.as_mut().unwrap()[0] = lease("diego-system", "cell-a", -30, -30)
    };
    breaks(
        late,
        "presences",
        Mark::Failure,
        &["do not renew their Lease: a"],
    );
}

#[test]
fn the_clocks() {
    let here = |seconds| {
        move |facts: &mut Facts| {
            (facts.server.asked, facts.server.answered) = (at(seconds), at(seconds))
        }
    };
    breaks(here(3), "local-clock", Mark::Ok, &[]);
    breaks(here(90), "local-clock", Mark::Warning, &["89s ahead"]);
    breaks(here(-7200), "local-clock", Mark::Warning, &["2h behind"]);
    let node = |said, written| {
        move |facts: &mut Facts| {
            facts.node_leases = Ok(vec![lease("kube-node-lease", "a", said, written)])
        }
    };
    breaks(node(-300, -300), "clocks", Mark::Ok, &[]);
    breaks(
        node(-2, -10),
        "clocks",
        Mark::Warning,
        &["Node a is 7s ahead"],
    );
    breaks(
        node(-100, -10),
        "clocks",
        Mark::Failure,
        &["Node a is 90s behind"],
    );
    // What was renewed long ago says nothing of now.
    breaks(node(0, -10_000), "clocks", Mark::Ok, &[]);
    breaks(
        |facts| facts.node_leases = Err(no_right()),
        "clocks",
        Mark::Warning,
        &["eve lacks"],
    );
}
