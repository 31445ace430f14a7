//! What a client of the lost instances sees: it asks each one where its record says it is, all the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::http;

/// How often each instance is asked.
const EVERY: Duration = Duration::from_millis(25);

/// Answers slower than this count as none.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where instances are, by index; kept up to date by whoever watches the records.
pub type Addresses = Arc<Mutex<BTreeMap<i32, String>>>;

/// The address of an instance now.
pub fn address(addresses: &Addresses, index: i32) -> Option<String> {
    addresses
        .lock()
        .expect("nobody panics with it")
        .get(&index)
        .cloned()
}

/// Asks the instances `indices` until each has failed and answered again. Returns the gap of each, from the
/// last answer before to the first one after.
pub fn gaps(
    addresses: &Addresses,
    indices: impl IntoIterator<Item = i32>,
) -> JoinSet<(i32, Duration)> {
    let mut probes = JoinSet::new();
    for index in indices {
        let addresses = addresses.clone();
        probes.spawn(async move {
            let mut last = Instant::now();
            let mut failed = false;
            loop {
                let asked = Instant::now();
                let answered = match address(&addresses, index) {
                    Some(address) => {
                        matches!(http::get(&address, "/", PATIENCE).await, Some((200, _)))
                    }
                    None => false,
                };
                match (answered, failed) {
                    (true, true) => return (index, asked.duration_since(last)),
                    (true, false) => last = asked,
                    (false, _) => failed = true,
                }
                tokio::time::sleep(EVERY).await;
            }
        });
    }
    probes
}
