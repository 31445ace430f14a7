//! etcd alone: members die, freeze and come back with their data.

use local_cluster::{Etcd, EtcdOptions, binary};
use std::{
    process::Output,
    time::{Duration, Instant},
};
use tokio::{process::Command, time};

/// What a failed assertion should show of a command.
fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

async fn etcdctl(endpoints: &[String], args: &[&str]) -> Output {
    let mut command = Command::new(binary("etcdctl").unwrap());
    command
        .arg("--endpoints")
        .arg(endpoints.join(","))
        .arg("--command-timeout=10s")
        .args(args);
    command.output().await.unwrap()
}

/// Writes, for at most 60 s: what is under way to a leader that dies is lost, and etcd says so only after seven seconds.
async fn put(endpoints: &[String], key: &str, value: &str) {
    let started = Instant::now();
    loop {
        let output = etcdctl(endpoints, &["put", key, value]).await;
        if output.status.success() {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{}",
            text(&output)
        );
    }
}

async fn get(endpoints: &[String], key: &str) -> String {
    let output = etcdctl(endpoints, &["get", "--print-value-only", key]).await;
    assert!(output.status.success(), "{}", text(&output));
    text(&output).trim().to_owned()
}

#[tokio::test]
async fn a_killed_single_member_keeps_its_data() {
    let mut etcd = Etcd::start(EtcdOptions::default()).await.unwrap();
    let endpoints = etcd.endpoints();
    put(&endpoints, "key", "value").await;
    let pid = etcd.member(0).pid();
    etcd.member(0).kill();
    assert!(!etcd.member(0).wait().await.success());
    assert!(!etcd.member(0).is_running());

    etcd.restart_member(0).await.unwrap();

    assert_eq!(etcd.endpoints(), endpoints);
    assert_ne!(etcd.member(0).pid(), pid);
    assert_eq!(get(&endpoints, "key").await, "value");
}

#[tokio::test]
async fn three_members_bear_the_loss_of_one_and_not_of_two() {
    let mut etcd = Etcd::start(EtcdOptions {
        members: 3,
        ..Default::default()
    })
    .await
    .unwrap();
    let endpoints = etcd.endpoints();
    etcd.member(0).kill();
    etcd.member(0).wait().await;
    put(&endpoints[1..], "key", "one lost").await;

    etcd.member(1).pause();
    let output = etcdctl(
        &endpoints[2..],
        &["--command-timeout=1s", "put", "other", "two lost"],
    )
    .await;
    // It may still be written once there is a majority again: a time-out says nothing either way.
    assert!(
        !output.status.success(),
        "a minority must not acknowledge: {}",
        text(&output)
    );

    etcd.member(1).resume();
    etcd.restart_member(0).await.unwrap();
    assert_eq!(get(&endpoints[..1], "key").await, "one lost");
}

#[tokio::test]
async fn all_members_can_be_lost_and_restarted() {
    let mut etcd = Etcd::start(EtcdOptions {
        members: 3,
        ..Default::default()
    })
    .await
    .unwrap();
    put(&etcd.endpoints(), "key", "value").await;
    for i in 0..3 {
        etcd.member(i).kill();
        etcd.member(i).wait().await;
    }
    // The first cannot become healthy alone, and must not wait for it.
    time::timeout(Duration::from_secs(5), etcd.restart_member(0))
        .await
        .expect("no wait without a majority")
        .unwrap();
    etcd.restart_member(1).await.unwrap();
    etcd.restart_member(2).await.unwrap();
    assert_eq!(get(&etcd.endpoints(), "key").await, "value");
}

#[tokio::test]
async fn impossible_options_are_refused() {
    assert!(
        Etcd::start(EtcdOptions {
            members: 0,
            ..Default::default()
        })
        .await
        .is_err()
    );
}
