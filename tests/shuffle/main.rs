//! The controller's shell under shuffled messages: what one or two real controllers ask and are told is held, and a seeded
//! random generator decides what goes on next.
//!
//! `make shuffle` plays many seeds; `SHUFFLE_SEED=17 cargo test --test shuffle` plays one again, and prints all its choices
//! with `SHUFFLE_LOG=1`. `docs/model.md` says what this shows, and how far a seed fixes the order.

#[path = "../support/mod.rs"]
mod support;

#[path = "../histories/rng.rs"]
#[allow(dead_code)]
mod rng;

mod api;
mod cells;
mod controllers;
mod frames;
mod gate;
mod history;
mod kubelets;
mod observer;
mod plan;
mod rest;
mod shuffler;
mod store;
mod verdict;

use std::sync::Arc;
use std::time::Instant;

use history::{Played, play};
use plan::Plan;
use support::Failure;
use support::site::Site;

/// How many seeds are played by default.
const SEEDS: u64 = 6;

fn number(name: &str) -> Result<Option<u64>, Failure> {
    let text = std::env::var(name).ok();
    let number = text.map(|text| text.parse());
    Ok(number
        .transpose()
        .map_err(|error| format!("{name}: {error}"))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_comes_first_all_is_kept_and_comes_to_rest() -> Result<(), Failure> {
    if std::env::var_os("RUST_LOG").is_some() {
        diego_operator::telemetry::init(diego_operator::telemetry::LogFormat::Text);
    }
    let first = number("SHUFFLE_FIRST")?.unwrap_or(0);
    let count = number("SHUFFLE_SEEDS")?.unwrap_or(SEEDS);
    let seeds = match number("SHUFFLE_SEED")? {
        Some(seed) => seed..seed + 1,
        None => first..first + count,
    };
    let site = Arc::new(Site::start().await?);
    let began = Instant::now();
    let mut decisions = 0;
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        let played = alone(Arc::clone(&site), seed).await?;
        decisions += played.decisions;
        tell(seed, &played);
        if !played.wrong.is_empty() {
            failed.push(seed);
        }
    }
    let took = began.elapsed();
    let count = seeds.end - seeds.start;
    println!("{count} seeds, {decisions} choices, {took:.1?}; failed: {failed:?}");
    match failed.first() {
        None => Ok(()),
        Some(seed) => Err(format!("to play it again: SHUFFLE_SEED={seed}").into()),
    }
}

/// In a runtime of one thread, with which everything of this history ends.
async fn alone(site: Arc<Site>, seed: u64) -> Result<Played, Failure> {
    let history = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(play(&site, seed))
    };
    tokio::task::spawn_blocking(history).await?
}

fn tell(seed: u64, played: &Played) {
    let Played {
        wrong,
        decisions,
        log,
        took: (history, rest),
    } = played;
    println!(
        "seed {seed}: {:?}, {decisions} choices, {history:.1?} and {rest:.1?} to rest",
        Plan::of(seed)
    );
    if !wrong.is_empty() || std::env::var_os("SHUFFLE_LOG").is_some() {
        println!("{}", log.join("\n"));
    }
    for wrong in wrong {
        println!("NOT KEPT by seed {seed}: {wrong}");
    }
}
