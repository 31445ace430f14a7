//! The presence store itself: killed, frozen, emptied, compacted, full.

use std::time::Duration;

use diego_operator::api::CellState;
use diego_operator::presence::etcd::key;
use etcd_client::{AlarmAction, AlarmType, Client};

use super::looks::none_ended;
use super::outages;
use crate::network::{Network, Way};
use crate::renewals;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, site::START};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 15,
            fault: "etcd's leader is killed, and a Cell with it",
            promise: "no Cell is taken for lost but the dead one, whose work runs elsewhere at most 13.6 s and its start later",
            tried: Tried::Here {
                injected: "three members; SIGKILL of the leader, at which one Cell renews, and of another Cell",
                protection: Protection::Seen {
                    without: "after a renewal without an answer another member is asked",
                    said: "the presence of the Cell that renewed at the leader ended as well, and of two of three Cells the guard believed neither",
                },
                short: false,
                run: |stage| Box::pin(leader_killed(stage)),
            },
        },
        Row {
            number: 16,
            fault: "etcd's leader is frozen",
            promise: "no Cell is taken for lost while it is frozen, nor when it goes on within the TTL (later it may end leases that were renewed meanwhile, which is a loss like any other)",
            tried: Tried::Here {
                injected: "three members; SIGSTOP of the leader just before a Cell renews there, SIGKILL 11 s later; SIGSTOP of the next one, SIGCONT 3 s later",
                protection: Protection::Seen {
                    without: "after a renewal without an answer another member is asked",
                    said: "the presence of the Cell that renewed at the leader ended",
                },
                short: false,
                run: |stage| Box::pin(leader_frozen(stage)),
            },
        },
        Row {
            number: 17,
            fault: "an etcd follower is frozen, with reps and the controller connected to it",
            promise: "no Cell is taken for lost, and one that dies is recovered as ever",
            tried: Tried::Here {
                injected: "three members; SIGSTOP of one follower and then of the other, a Cell killed meanwhile",
                protection: Protection::Seen {
                    without: "after a renewal without an answer another member is asked",
                    said: "the presences of Cells that lived ended, and their instances were moved",
                },
                short: false,
                run: |stage| Box::pin(follower_frozen(stage)),
            },
        },
        Row {
            number: 18,
            fault: "the whole presence store is down for longer than the TTL",
            promise: "nothing is moved, neither meanwhile nor when it is back",
            tried: Tried::Here {
                injected: "SIGKILL of etcd, started again 30 s later",
                protection: Protection::Seen {
                    without: "an error of the presence store is no answer",
                    said: "three Cells that lived were taken for lost",
                },
                short: false,
                run: |stage| Box::pin(outages::down(stage)),
            },
        },
        Row {
            number: 19,
            fault: "the presence store has lost its data, or is restored from an old backup",
            promise: "nothing is moved; epochs go on growing, and a Cell that dies later is recovered as ever",
            tried: Tried::Here {
                injected: "etcd killed, its data removed, started again; a Cell killed afterwards; then the same with data of before one Cell came, and before another one's rep was restarted, and its revision 200 greater",
                protection: Protection::Seen {
                    without: "what is absent from another store than before says nothing",
                    said: "three Cells that lived were taken for lost",
                },
                short: false,
                run: |stage| Box::pin(outages::lost_data(stage)),
            },
        },
        Row {
            number: 20,
            fault: "the store's history is compacted while the controller can't hear it",
            promise: "the loss that no watch can tell of any more is found by the list that follows",
            tried: Tried::Here {
                injected: "a proxy cut before the controller, a Cell killed, etcd compacted, the proxy mended; no resync",
                protection: Protection::Seen {
                    without: "the list after a broken watch is compared with what was known",
                    said: "nothing ran elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(compacted(stage)),
            },
        },
        Row {
            number: 21,
            fault: "the presence store is full",
            promise: "registered Cells stay, dead ones are recovered, and a new one is told why it can't register until there is room",
            tried: Tried::Here {
                injected: "etcd's alarm NOSPACE",
                protection: Protection::Seen {
                    without: "a renewal writes nothing (instead: each one is a new lease)",
                    said: "the presences of Cells that lived ended",
                },
                short: false,
                run: |stage| Box::pin(full(stage)),
            },
        },
        Row {
            number: 22,
            fault: "all members of the store are defragmented at once",
            promise: "nothing happens",
            tried: Tried::Here {
                injected: "three members; defragmentation of all of them, five times",
                protection: Protection::NotOurs {
                    by: "etcd keeps the time of its leases in memory, and renews them while it copies its file",
                    said: "It passes as well with one renewal per 0.98 TTL, and with renewals that write",
                },
                short: false,
                run: |stage| Box::pin(defragmented(stage)),
            },
        },
    ]
}

/// What these rows begin with.
pub fn setup<'a>() -> Setup<'a> {
    Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    }
}

async fn leader(stage: &Stage) -> Result<usize, Failure> {
    for (n, endpoint) in stage.site.etcd.endpoints().into_iter().enumerate() {
        let status = Client::connect([endpoint], None).await?.status().await?;
        if status.header().map(|header| header.member_id()) == Some(status.leader()) {
            return Ok(n);
        }
    }
    Err("no member leads".into())
}

async fn leader_killed(stage: &mut Stage) -> Result<Figures, Failure> {
    stage.fresh_with(3).await?;
    let before = stage.set(setup()).await?;
    let leader = renewals::leads_where_renewed(stage, &stage.cell("a")).await?;
    let since = stage.fault();
    stage.site.etcd.member(leader).kill();
    stage.site.kill_cell(&stage.cell("b")).await;
    // An election, and what is left of a TTL that a new leader begins anew.
    let within = RECOVERY.later(8);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    stage.fault();
    stage.site.etcd.restart_member(leader).await?;
    Ok(Figures::away(away))
}

async fn leader_frozen(stage: &mut Stage) -> Result<Figures, Failure> {
    stage.fresh_with(3).await?;
    let before = stage.set(setup()).await?;
    let cell = stage.cell("a");
    // One that hangs until somebody kills it.
    let member = renewals::leads_where_renewed(stage, &cell).await?;
    renewals::just_before(stage, &cell).await?;
    stage.fault();
    stage.site.etcd.member(member).pause();
    // A new leader gives every lease its whole TTL once more, and a second.
    tokio::time::sleep(Duration::from_secs(11)).await;
    none_ended(stage).await?;
    stage.fault();
    stage.site.etcd.restart_member(member).await?;
    // One that goes on.
    let leader = leader(stage).await?;
    renewals::just_before(stage, &cell).await?;
    stage.fault();
    stage.site.etcd.member(leader).pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.site.etcd.member(leader).resume();
    tokio::time::sleep(Duration::from_secs(8)).await;
    none_ended(stage).await?;
    stage.unmoved(&before).await?;
    Ok(Figures::default())
}

async fn follower_frozen(stage: &mut Stage) -> Result<Figures, Failure> {
    stage.fresh_with(3).await?;
    let before = stage.set(setup()).await?;
    let leader = leader(stage).await?;
    let followers: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    stage.fault();
    stage.site.etcd.member(followers[0]).pause();
    tokio::time::sleep(Duration::from_secs(8)).await;
    none_ended(stage).await?;
    stage.site.etcd.member(followers[0]).resume();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.site.etcd.member(followers[1]).pause();
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    stage.site.etcd.member(followers[1]).resume();
    Ok(Figures::away(away))
}

async fn compacted(stage: &mut Stage) -> Result<Figures, Failure> {
    let endpoint = stage.site.etcd.endpoints().remove(0);
    let network = Network::to(&endpoint).await?;
    // So long an interval that the periodic pass has no part in it.
    let flags = ["--convergence-interval-seconds", "3600"];
    stage
        .site
        .start_controller_at(&network.url("http"), &flags)
        .await?;
    let setup = Setup {
        without_controller: true,
        ..setup()
    };
    let before = stage.set(setup).await?;
    stage.fault();
    network.set(Way::Cut);
    let lost = stage.cell("b");
    stage.site.kill_cell(&lost).await;
    let client = Client::connect([endpoint], None).await?;
    let revision = eventually("the presence is gone", START, || {
        let mut client = client.clone();
        let key = key(&lost);
        async move {
            let answer = client.get(key, None).await.ok()?;
            let revision = answer.header().map_or(0, |header| header.revision());
            (answer.count() == 0).then_some(revision)
        }
    })
    .await?;
    client.clone().compact(revision, None).await?;
    let since = stage.fault();
    network.set(Way::Open);
    stage.moved(&before, &["b"], since).await?;
    stage.tasks_failed(1, 2).await?;
    let resyncs = "diego_cell_presence_expired_total{source=\"resync\"}";
    if stage.site.metric(resyncs).await? != 0.0 {
        return Err("the periodic pass found it".into());
    }
    stage.keep(network);
    Ok(Figures::default())
}

async fn full(stage: &mut Stage) -> Result<Figures, Failure> {
    let before = stage.set(setup()).await?;
    let mut client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    stage.fault();
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await?;
    let refused = client.put("anything", "at all", None).await;
    if refused.is_ok() {
        return Err("the store took a write: the row shows nothing".into());
    }
    let fourth = stage.cell("d");
    let late = stage.site.start_extra_rep(&fourth, &fourth, &[])?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    none_ended(stage).await?;
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    let said = std::fs::read_to_string(late.log())?;
    if !said.contains("does not register") || !said.contains("space") {
        return Err(format!("the new rep does not say why it is not there: {said}").into());
    }
    stage.fault();
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await?;
    stage.site.cell_state(&fourth, CellState::Present).await?;
    Ok(Figures::away(away))
}

async fn defragmented(stage: &mut Stage) -> Result<Figures, Failure> {
    stage.fresh_with(3).await?;
    let before = stage.set(setup()).await?;
    stage.fault();
    for _ in 0..5 {
        let members = stage.site.etcd.endpoints().into_iter();
        let all = members.map(|endpoint| async move {
            let mut client = Client::connect([endpoint], None).await?;
            client.defragment().await?;
            Ok::<_, Failure>(())
        });
        futures::future::try_join_all(all).await?;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    none_ended(stage).await?;
    stage.unmoved(&before).await?;
    Ok(Figures::default())
}
