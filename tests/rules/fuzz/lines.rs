//! Lines and words: what supervisors and reps say, deadlines in files, URLs, lists of hosts, and headers of requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use diego_operator::callback::{HostEntry, HostPolicy, receiver};
use diego_operator::converge::fence::BootTime;
use diego_operator::fence::stamp::{self, Deadline};
use diego_operator::http::{bearer, prefers_openmetrics};
use diego_operator::rep::supervise::{Line, Request};
use http::{HeaderMap, HeaderValue, header};
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
    fn of_reps(text in bend::text(&["stop", "deadline 123456789012"])) {
        bounded(|| {
            if let Some(Request::Deadline(at)) = Request::parse(&text) {
                assert_eq!(Request::parse(&format!("deadline {at}")), Some(Request::Deadline(at)));
                // What it is made of can be reckoned with.
                let _ = (at.since(BootTime::from_nanos(1)), at.after(std::time::Duration::MAX));
            }
        });
    }

    #[test]
    fn deadlines_in_files(text in bend::text(&["123456789012 0b1e-4d\n", "off 0b1e-4d\n"])) {
        bounded(|| {
            match Deadline::parse(&text) {
                Ok((deadline, boot)) => {
                    let line = deadline.line(boot);
                    assert_eq!(Deadline::parse(&line), Ok((deadline, boot)), "{line:?}");
                }
                Err(problem) => assert!(problem.len() < 2000, "{problem}"),
            }
            let now = BootTime::from_nanos(123_456_789_012);
            let _ = stamp::is_at_work(&text, "0b1e-4d", now);
        });
    }

    #[test]
    fn tokens_in_headers(value in bend::bytes(vec![b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln".to_vec(), b"bearer  a".to_vec()])) {
        bounded(|| {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return };
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            if let Some(token) = bearer(&headers) {
                assert!(!token.is_empty() && token.len() <= 16 << 10);
                assert_eq!(token.trim(), token);
            }
        });
    }

    #[test]
    fn formats_in_headers(accept in bend::text(&[
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "text/html, */*;q=0.1",
    ])) {
        bounded(|| {
            let wanted = prefers_openmetrics([&*accept].into_iter());
            assert!(!wanted || accept.contains("application/openmetrics-text"), "{accept}");
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
