//! Lines and words: what supervisors say, URLs, and lists of hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use diego_operator::callback::{HostEntry, HostPolicy, receiver};
use diego_operator::rep::supervise::Line;
use proptest::prelude::*;

use super::{bend, bounded, config};

const URLS: [&str; 7] = [
    "http://user:p%40ss@cc.example.com:8080/done?x=1#y",
    "https://[fd00::1]:443/",
    "http://127.0.0.1/",
    "http://0x7f.1/",
    "http://cc.example.com.:80",
    "http://a@b@c/",
    "https://[::ffff:169.254.169.254]/latest",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn of_supervisors(text in bend::text(&["started 7", "failed no such file", "exited 3", "signaled 9", "lost disk full"])) {
        bounded(|| {
            if let Some(line) = Line::parse(&text) {
                // As written it is one line again, and says the same.
                let written = line.to_string();
                assert!(!written.contains('\n'), "{written:?}");
                assert_eq!(Line::parse(&written).map(|line| line.to_string()), Some(written));
            }
        });
    }

    #[test]
    fn urls_of_callbacks(url in bend::text(&URLS)) {
        bounded(|| {
            let receiver = receiver(&url);
            assert!(!receiver.contains("p%40ss") && !receiver.contains("p@ss"), "{receiver}");
            assert!(receiver.is_empty() || receiver.contains(':'), "{receiver}");
        });
    }

    /// However the list is written, a name never opens what only an address may open.
    #[test]
    fn hosts_of_callbacks(
        entry in bend::text(&["cc.example.com", "*.example.com", "10.0.0.0/8", "[fd00::1]", "fd00::/8", "127.0.0.1"]),
        host in bend::text(&["cc.example.com", "10.1.2.3"]),
        four in any::<u32>(),
        six in any::<u128>(),
    ) {
        bounded(|| {
            let Ok(entry) = entry.parse::<HostEntry>() else { return };
            let is_name = matches!(entry, HostEntry::Name(_) | HostEntry::Below(_));
            let policy = HostPolicy::new(vec![entry]);
            let _ = policy.check_name(&host);
            let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            for address in [IpAddr::V4(four.into()), IpAddr::V6(six.into())].into_iter().chain(local) {
                let allowed = policy.check(&host, address).is_ok();
                assert!(!allowed || !is_name || !local.contains(&address), "{host} {address}");
            }
        });
    }
}
