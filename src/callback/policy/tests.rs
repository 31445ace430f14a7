//! Which hosts and addresses are allowed, as tables.

use super::*;

fn policy(list: &str) -> HostPolicy {
    let entries = list.split(',').filter(|entry| !entry.is_empty());
    HostPolicy::new(entries.map(|entry| entry.parse().expect(entry)).collect())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

#[test]
fn entries_are_read() {
    for (text, shown) in [
        ("cc.example.com", "cc.example.com"),
        (" CC.Example.COM. ", "cc.example.com"),
        ("cloud_controller", "cloud_controller"),
        ("*.example.com", "*.example.com"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("::1", "::1/128"),
        ("[::1]", "::1/128"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("fd00::/8", "fd00::/8"),
    ] {
        let entry: HostEntry = text.parse().expect(text);
        assert_eq!(entry.to_string(), shown);
    }
    for text in [
        "",
        "*",
        "*.",
        "a..b",
        "http://example.com",
        "example.com:443",
        "example.com/path",
        "10.0.0.0/33",
        "10.0.0.300",
        "1.2.3",
        "127.1",
        "exa mple.com",
        "a.*.com",
    ] {
        let problem = text.parse::<HostEntry>().expect_err(text).to_string();
        assert!(problem.contains("10.0.0.0/8"), "the remedy: {problem}");
    }
}

#[test]
fn special_addresses_in_every_dress() {
    for (text, what) in [
        ("127.0.0.1", Some("loopback")),
        ("127.9.9.9", Some("loopback")),
        ("169.254.169.254", Some("link-local")),
        ("0.0.0.0", Some("unspecified")),
        ("0.1.2.3", Some("unspecified")),
        ("224.0.0.1", Some("multicast")),
        ("239.255.255.255", Some("multicast")),
        ("255.255.255.255", Some("broadcast")),
        ("10.0.0.1", None),
        ("192.168.0.1", None),
        ("8.8.8.8", None),
        ("::1", Some("loopback")),
        ("::", Some("unspecified")),
        ("fe80::1", Some("link-local")),
        ("febf::1", Some("link-local")),
        ("ff02::1", Some("multicast")),
        ("fd00::1", None),
        ("2001:db8::1", None),
        ("::ffff:127.0.0.1", Some("loopback")),
        ("::ffff:169.254.169.254", Some("link-local")),
        ("::ffff:10.0.0.1", None),
        ("::127.0.0.1", Some("loopback")),
        ("64:ff9b::7f00:1", Some("loopback")),
        ("64:ff9b::a9fe:a9fe", Some("link-local")),
        ("64:ff9b:1::7f00:1", Some("loopback")),
        ("64:ff9b::808:808", None),
        ("2002:7f00:1::", Some("loopback")),
        ("2002:a9fe:a9fe::1", Some("link-local")),
        ("2002:808:808::1", None),
        ("::ffff:0:127.0.0.1", Some("loopback")),
        ("::ffff:0:169.254.169.254", Some("link-local")),
        ("::ffff:0:8.8.8.8", None),
        ("2001:0:7f00:1::1", Some("Teredo")),
        ("2001::1", Some("Teredo")),
        ("2001:1::1", None),
        ("100.100.100.200", Some("metadata")),
        ("::ffff:100.100.100.200", Some("metadata")),
        ("64:ff9b::6464:64c8", Some("metadata")),
        ("100.100.100.201", None),
        ("fd00:ec2::254", Some("metadata")),
        ("fd00:ec2::253", None),
    ] {
        assert_eq!(special(address(text)), what, "{text}");
    }
}

#[test]
fn what_is_allowed() {
    // The list, the URL's host, the address found for it, whether it is allowed.
    for (list, host, found, allowed) in [
        ("", "cc.example.com", "10.0.0.1", true),
        ("", "cc.example.com", "2001:db8::1", true),
        ("", "10.0.0.1", "10.0.0.1", true),
        ("", "cc.example.com", "127.0.0.1", false),
        ("", "127.0.0.1", "127.0.0.1", false),
        ("", "metadata.internal", "169.254.169.254", false),
        ("", "::ffff:127.0.0.1", "::ffff:127.0.0.1", false),
        ("0.0.0.0/0", "anything", "127.0.0.1", true),
        ("0.0.0.0/0", "anything", "169.254.169.254", true),
        ("0.0.0.0/0", "anything", "::1", false),
        ("::/0", "anything", "fd00:ec2::254", true),
        ("cc.example.com", "cc.example.com", "10.0.0.1", true),
        ("cc.example.com", "CC.example.com.", "10.0.0.1", true),
        ("cc.example.com", "x.cc.example.com", "10.0.0.1", false),
        ("cc.example.com", "other.example.com", "10.0.0.1", false),
        ("cc.example.com", "10.0.0.1", "10.0.0.1", false),
        // A name never opens these, an address or a net does, whatever the name.
        ("cc.example.com", "cc.example.com", "127.0.0.1", false),
        ("localhost", "localhost", "127.0.0.1", false),
        ("localhost", "localhost", "::1", false),
        ("127.0.0.1", "localhost", "127.0.0.1", true),
        ("127.0.0.0/8", "127.0.0.1", "127.0.0.1", true),
        ("127.0.0.0/8", "localhost", "::1", false),
        ("::1", "localhost", "::1", true),
        (
            "169.254.0.0/16",
            "metadata.internal",
            "169.254.169.254",
            true,
        ),
        ("127.0.0.1", "x", "::ffff:127.0.0.1", true),
        ("127.0.0.1", "x", "64:ff9b::7f00:1", false),
        ("127.0.0.1", "cc.example.com", "10.0.0.1", false),
        ("*.example.com", "cc.example.com", "10.0.0.1", true),
        ("*.example.com", "a.b.example.com", "10.0.0.1", true),
        ("*.example.com", "example.com", "10.0.0.1", false),
        ("*.example.com", "badexample.com", "10.0.0.1", false),
        ("*.example.com", "evil.example.com", "127.0.0.1", false),
        ("10.0.0.0/8", "anything", "10.9.9.9", true),
        ("10.0.0.0/8", "anything", "11.0.0.1", false),
        ("a.example,10.0.0.0/8", "a.example", "11.0.0.1", true),
        ("a.example,10.0.0.0/8", "b.example", "11.0.0.1", false),
    ] {
        let result = policy(list).check(host, address(found));
        assert_eq!(
            result.is_ok(),
            allowed,
            "[{list}] {host} at {found}: {result:?}"
        );
        let Err(denied) = result else { continue };
        let words = denied.to_string();
        assert!(
            words.contains(host) && words.contains("--callback-allowed-hosts"),
            "{words}"
        );
    }
}

#[test]
fn the_presence_store_is_reached_through_an_entry_for_its_address_alone() {
    for (list, found, allowed) in [
        ("", "10.0.0.5", false),
        ("", "::ffff:10.0.0.5", false),
        ("", "64:ff9b::a00:5", false),
        ("", "fd00::5", false),
        ("", "10.0.0.6", true),
        ("etcd.example.com", "10.0.0.5", false),
        ("10.0.0.0/8", "10.0.0.5", true),
    ] {
        let policy = policy(list).guarding([address("10.0.0.5"), address("fd00::5")]);
        let result = policy.check("etcd.example.com", address(found));
        assert_eq!(result.is_ok(), allowed, "[{list}] {found}: {result:?}");
        let Err(denied) = result else { continue };
        let words = denied.to_string();
        assert!(words.contains("presence store"), "{words}");
    }
}

#[test]
fn a_name_that_can_never_be_allowed_is_not_looked_up() {
    for (list, host, sensible) in [
        ("", "anything", true),
        ("a.example", "a.example", true),
        ("a.example", "b.example", false),
        ("10.0.0.0/8", "b.example", true),
    ] {
        let result = policy(list).check_name(host);
        assert_eq!(result.is_ok(), sensible, "[{list}] {host}");
    }
}
