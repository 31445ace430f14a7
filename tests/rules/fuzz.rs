//! Bytes from outside, bent in every way: nothing that reads them may panic, hang, or grow without end.
//!
//! Each test has seeds, which are inputs as they should be, and bends them: bytes are changed, repeated, cut out and put in,
//! JSON is changed node by node. `make test` runs the same few hundred cases of each every time; `FUZZ_CASES=100000 cargo test
//! --release --test rules fuzz` runs more, and others each time. What fails is made smaller by proptest and printed.

mod answers;
mod bend;
mod flags;
mod lines;
mod objects;
mod runtimes;
mod stored;

use std::time::{Duration, Instant};

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Cases of each test in `make test`.
const CASES: u32 = 512;

/// No input takes longer to be read, however busy the machine is.
const BOUND: Duration = Duration::from_secs(5);

/// How many cases each test has, where that was asked for.
fn asked() -> Option<u32> {
    let wanted = std::env::var("FUZZ_CASES").ok();
    wanted.map(|text| text.parse().expect("FUZZ_CASES is a number"))
}

fn config() -> ProptestConfig {
    let asked = asked();
    ProptestConfig {
        cases: asked.unwrap_or(CASES),
        failure_persistence: None,
        rng_seed: asked.map_or(RngSeed::Fixed(1), |_| RngSeed::Random),
        ..ProptestConfig::default()
    }
}

/// Runs one case within [`BOUND`].
fn bounded(case: impl FnOnce()) {
    let began = Instant::now();
    case();
    let took = began.elapsed();
    assert!(took < BOUND, "it took {took:?}");
}
