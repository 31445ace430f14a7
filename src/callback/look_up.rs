//! Looking up hosts, on so few threads that a slow name server holds up nothing else.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use super::slots::Slots;

/// Look-ups at once. Each takes a thread of the process until the resolver gives up, however long somebody waits.
const LOOK_UPS: usize = 32;

/// Look-ups of one host at once.
const LOOK_UPS_OF_A_HOST: usize = 8;

/// A start waits no longer for the addresses of a URL.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks up hosts.
#[derive(Debug, Clone)]
pub struct LookUps(Slots);

impl Default for LookUps {
    fn default() -> Self {
        LookUps(Slots::new(LOOK_UPS, LOOK_UPS_OF_A_HOST))
    }
}

impl LookUps {
    /// The addresses of a host.
    ///
    /// # Errors
    /// When it has none, or nobody knows.
    pub async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.ask(host, getaddrinfo).await
    }

    /// The addresses of the hosts of these URLs, as far as they are known now.
    pub async fn of_urls(&self, urls: &[String]) -> Vec<IpAddr> {
        let hosts = urls.iter().filter_map(|url| {
            let url: http::Uri = url.parse().ok()?;
            Some(url.host()?.trim_matches(['[', ']']).to_owned())
        });
        let found = hosts.map(async |host| {
            let found = tokio::time::timeout(PATIENCE, self.addresses(&host)).await;
            found.ok().and_then(Result::ok).unwrap_or_default()
        });
        futures::future::join_all(found).await.concat()
    }

    /// Asks `resolve` on a thread of its own. The slot is its own too: it ends with `resolve`, not with whoever waits.
    async fn ask<F>(&self, host: &str, resolve: F) -> io::Result<Vec<IpAddr>>
    where
        F: FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    {
        let slot = self.0.acquire(host).await;
        let host = host.to_owned();
        tokio::task::spawn_blocking(move || {
            let found = resolve(&host);
            drop(slot);
            found
        })
        .await
        .map_err(io::Error::other)?
    }
}

fn getaddrinfo(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = (host, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex};

    /// A name server that answers nobody until it is let.
    #[derive(Default)]
    struct Slow {
        asked: AtomicUsize,
        answers: Mutex<bool>,
        changed: Condvar,
    }

    impl Slow {
        fn resolve(&self) -> io::Result<Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answers = self.answers.lock().expect("no panic");
            let answers = self.changed.wait_while(answers, |answers| !*answers);
            drop(answers.expect("no panic"));
            Ok(Vec::new())
        }

        fn answer(&self) {
            *self.answers.lock().expect("no panic") = true;
            self.changed.notify_all();
        }
    }

    /// So many look-ups that nobody waits for any more; returns how many of them the name server was asked.
    async fn given_up(
        look_ups: &LookUps,
        slow: &Arc<Slow>,
        host: impl Fn(usize) -> String,
    ) -> usize {
        let asks = (0..100).map(|n| {
            let slow = slow.clone();
            let host = host(n);
            async move {
                let ask = look_ups.ask(&host, move |_| slow.resolve());
                tokio::time::timeout(Duration::from_millis(200), ask).await
            }
        });
        let given_up = futures::future::join_all(asks).await;
        assert!(given_up.iter().all(Result::is_err), "nobody was answered");
        slow.asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn the_addresses_of_urls_are_those_that_are_known() {
        let urls = [
            "https://10.0.0.5:2379",
            "http://[fd00::5]:2379",
            "nonsense",
            "http://localhost:1",
        ];
        let found = LookUps::default().of_urls(&urls.map(String::from)).await;
        assert_eq!(found[0].to_string(), "10.0.0.5");
        assert_eq!(found[1].to_string(), "fd00::5");
        assert!(
            found.len() > 2 && found[2..].iter().all(IpAddr::is_loopback),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_name_server_that_hangs_takes_few_threads_and_one_host_fewer() {
        let (look_ups, slow) = (LookUps::default(), Arc::<Slow>::default());
        let asked = given_up(&look_ups, &slow, |_| "one.example".into()).await;
        assert!(asked <= LOOK_UPS_OF_A_HOST, "{asked}");
        let other = look_ups.addresses("127.0.0.1").await.expect("an address");
        assert_eq!(other, ["127.0.0.1".parse::<IpAddr>().expect("an address")]);
        let asked = given_up(&look_ups, &slow, |n| format!("{n}.example")).await;
        assert!(asked <= LOOK_UPS, "{asked}");
        // Who gave up did not free the threads; the resolver does.
        slow.answer();
        let last = look_ups.ask("last.example", |_| Ok(Vec::new()));
        let last = tokio::time::timeout(Duration::from_secs(10), last).await;
        assert!(last.is_ok(), "the threads are free again");
    }
}
