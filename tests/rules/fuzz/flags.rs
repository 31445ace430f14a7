//! The command line: whatever stands there, it is taken or refused with a reason.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use diego_operator::config::{Cli, MetricsArgs, Program};
use proptest::prelude::*;

use super::{bend, bounded, config};

const CONTROLLER: [&str; 21] = [
    "--presence=etcd",
    "--etcd-endpoints=http://a:2379,https://b:2379",
    "--etcd-ca=ca.pem",
    "--etcd-cert=tls.crt",
    "--etcd-key=tls.key",
    "--namespace=diego-system",
    "--metrics-addr=0.0.0.0:8080",
    "--health-addr=[::]:8081",
    "--log-format=json",
    "--convergence-interval-seconds=30",
    "--write-concurrency=24",
    "--expire-pending-task-seconds=1800",
    "--callback-allowed-hosts=*.example.com,10.0.0.0/8",
    "--leader-elect",
    "--leader-elect-lease-duration-seconds=2.5",
    "--starting-container-weight=0.25",
    "--mass-loss-threshold-percent=33",
    "--metrics-tls-cert=tls.crt",
    "--metrics-tls-key=tls.key",
    "--metrics-auth=token",
    "--metrics-token-audience=diego-metrics,other",
];

const REP: [&str; 18] = [
    "--cell-id=cell-1",
    "--zone=z1",
    "--executor=process",
    "--memory=8Gi",
    "--disk=10Gi",
    "--max-containers=250",
    "--placement-tags=a,b",
    "--presence-ttl-seconds=5",
    "--work-dir=/var/lib/diego",
    "--evacuation-timeout-seconds=600",
    "--instance-log-size=1Mi",
    "--death-witness=true",
    "--node-name=node-1",
    "--fence-deadline-file=/run/fence/deadline",
    "--fence-ready-file=/run/fence/ready",
    "--metrics-tls-cert=tls.crt",
    "--metrics-tls-key=tls.key",
    "--metrics-auth=token",
];

const FENCE: [&str; 5] = [
    "--deadline-file=/run/fence/deadline",
    "--ready-file=/run/fence/ready",
    "--cri-socket=unix:///run/containerd/containerd.sock",
    "--health-addr=0.0.0.0:8082",
    "--log-format=json",
];

/// A longer word that is no flag costs clap seconds: it looks for the flags that it resembles.
const LONGEST: usize = 1024;

fn line(flags: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let seeds: Vec<Vec<u8>> = flags.iter().map(|flag| flag.as_bytes().to_vec()).collect();
    let as_it_should_be = proptest::sample::subsequence(seeds.clone(), 0..=seeds.len());
    let bent = proptest::collection::vec(bend::bytes(seeds), 0..3);
    (as_it_should_be, bent).prop_map(|(mut line, bent)| {
        line.extend(bent.into_iter().map(|mut word| {
            word.truncate(LONGEST);
            word
        }));
        line
    })
}

/// Tokens are never asked for in plain text.
fn is_served(metrics: &MetricsArgs) {
    if metrics.validate().is_ok() {
        assert!(!metrics.asks() || metrics.tls().is_some());
        assert!(metrics.asks() || metrics.metrics_token_audience.is_empty());
    }
}

fn parse(program: &str, line: Vec<Vec<u8>>) {
    let words = ["diego", program].map(OsString::from).into_iter();
    let words = words.chain(line.into_iter().map(OsString::from_vec));
    match Cli::try_parse_from(words) {
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
        Ok(cli) => match cli.program {
            Program::Controller(args) => {
                let _ = (
                    args.common.validate(),
                    args.tasks.validate(),
                    args.leader.validate(),
                );
                let _ = (args.auction(), args.common.etcd());
                is_served(&args.common.metrics);
            }
            Program::Rep(args) => {
                let valid = args.validate().is_ok() && args.common.validate().is_ok();
                if valid {
                    let (capacity, offer) = (args.capacity(), args.offer());
                    let _ = (capacity, offer, args.cell_id(), args.evacuation_timeout());
                    let _ = args.fence();
                }
                is_served(&args.common.metrics);
            }
            Program::Fence(args) => drop(args.config()),
            _ => {}
        },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn of_the_controller(line in line(&CONTROLLER)) {
        bounded(|| parse("controller", line));
    }

    #[test]
    fn of_the_rep(line in line(&REP)) {
        bounded(|| parse("rep", line));
    }

    #[test]
    fn of_the_fencer(line in line(&FENCE)) {
        bounded(|| parse("fence", line));
    }
}
