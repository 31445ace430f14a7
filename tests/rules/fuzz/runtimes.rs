//! What a container runtime answers to the fencer: protobuf, which any program behind the socket may have made.

use diego_operator::fence::cri::rewritten;
use proptest::prelude::*;

use super::{bend, bounded, config};

/// A field with a length: a text, or a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short one");
    assert!(length < 0x80, "one byte of length");
    [&[number << 3 | 2, length], content].concat()
}

/// As containerd answers `ListPodSandbox`, with fields that nobody asked for.
fn sandboxes() -> Vec<u8> {
    let metadata = [
        field(1, b"web-0"),
        field(2, b"u-1"),
        field(3, b"space"),
        vec![4 << 3, 1],
    ];
    let label = [
        field(1, b"diego.cloudfoundry.org/policy"),
        field(2, b"Strict"),
    ];
    let sandbox = [
        field(1, b"s-1"),
        field(2, &metadata.concat()),
        vec![3 << 3, 1],
        vec![4 << 3, 0xff, 0x7f],
        field(5, &label.concat()),
    ];
    field(1, &sandbox.concat())
}

/// And `ListContainers`.
fn containers() -> Vec<u8> {
    let running = [field(1, b"c-1"), field(2, b"s-1"), vec![6 << 3, 1]];
    let ended = [field(1, b"c-2"), field(2, b"s-1"), vec![6 << 3, 2]];
    [field(1, &running.concat()), field(1, &ended.concat())].concat()
}

fn version() -> Vec<u8> {
    [field(1, b"0.1.0"), field(2, b"containerd"), field(3, b"v2")].concat()
}

#[test]
fn the_seeds_are_answers() {
    let read = |bytes: Vec<u8>, which: usize| rewritten(&bytes)[which].clone().expect("an answer");
    assert!(!read(version(), 0).is_empty());
    assert!(
        read(sandboxes(), 1)
            .windows(6)
            .any(|part| part == b"Strict")
    );
    assert!(read(containers(), 2).windows(3).any(|part| part == b"c-2"));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn answers_of_runtimes(bytes in bend::bytes(vec![version(), sandboxes(), containers()])) {
        bounded(|| {
            for (which, read) in rewritten(&bytes).into_iter().enumerate() {
                let Some(written) = read else { continue };
                // What is kept is no more than what came, and is the same when it is read again. Maps have no order.
                let again = rewritten(&written)[which].as_ref().map(Vec::len);
                assert_eq!(again, Some(written.len()));
            }
        });
    }
}
