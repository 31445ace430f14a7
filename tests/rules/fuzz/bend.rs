//! How an input is bent: as bytes, and as JSON.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Words that mean something to one reader or another.
const WORDS: [&[u8]; 28] = [
    b"",
    b"\0",
    b"\n",
    b"\xff\xfe",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"@",
    b"/",
    b"%",
    b"%zz",
    b"$(A)",
    b"$$",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1e999",
    b"NaN",
    b"null",
    b"true",
    b"http://",
    b"..",
    "\u{1F600}".as_bytes(),
];

/// One change. Places are fractions of the length, so that a smaller input has the same changes.
#[derive(Debug, Clone)]
pub enum Bend {
    Set { at: u16, byte: u8 },
    Insert { at: u16, word: u8 },
    Cut { at: u16, length: u8 },
    Repeat { at: u16, length: u8, times: u8 },
    Truncate { at: u16 },
}

impl Bend {
    fn apply(&self, input: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) * (input.len() + 1) / (usize::from(u16::MAX) + 1);
        match *self {
            Bend::Set { at, byte } => {
                let at = place(at);
                if let Some(old) = input.get_mut(at) {
                    *old = byte;
                }
            }
            Bend::Insert { at, word } => {
                let (at, word) = (place(at), WORDS[usize::from(word) % WORDS.len()]);
                input.splice(at..at, word.iter().copied());
            }
            Bend::Cut { at, length } => {
                let at = place(at);
                input.drain(at..input.len().min(at + usize::from(length)));
            }
            Bend::Repeat { at, length, times } => {
                let at = place(at);
                let end = input.len().min(at + usize::from(length));
                let part = input[at..end].repeat(usize::from(times));
                input.splice(at..at, part);
            }
            Bend::Truncate { at } => input.truncate(place(at)),
        }
    }
}

fn bend() -> impl Strategy<Value = Bend> {
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Bend::Set { at, byte }),
        (any::<u16>(), any::<u8>()).prop_map(|(at, word)| Bend::Insert { at, word }),
        (any::<u16>(), any::<u8>()).prop_map(|(at, length)| Bend::Cut { at, length }),
        (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(at, length, times)| Bend::Repeat {
            at,
            length,
            times
        }),
        any::<u16>().prop_map(|at| Bend::Truncate { at }),
    ]
}

/// One of the seeds, bent as bytes a few times; now and then any bytes at all.
pub fn bytes(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bent = (
        proptest::sample::select(seeds),
        proptest::collection::vec(bend(), 0..6),
    )
        .prop_map(|(mut seed, bends)| {
            for bend in bends {
                bend.apply(&mut seed);
            }
            seed
        });
    prop_oneof![9 => bent, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

/// The same for texts.
pub fn text(seeds: &[&str]) -> impl Strategy<Value = String> + use<> {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    bytes(seeds).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What a node of JSON may become.
#[derive(Debug, Clone)]
pub enum Graft {
    Value(Value),
    Gone,
    Nested(u8),
    /// The node, so often in a list.
    Many(u8),
    Long(u16),
}

fn graft() -> impl Strategy<Value = Graft> {
    let values = vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("\u{0}"),
        json!("1Ei"),
        json!("-1"),
        json!("9999999999999999999999Gi"),
        json!("2026-11-23T99:99:99Z"),
        json!("9999-12-31T23:59:59.999999Z"),
        json!("-009999-01-01T00:00:00Z"),
        json!("$(A)$(A)"),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"": ""}),
    ];
    prop_oneof![
        8 => proptest::sample::select(values).prop_map(Graft::Value),
        3 => Just(Graft::Gone),
        1 => any::<u8>().prop_map(Graft::Nested),
        1 => any::<u8>().prop_map(Graft::Many),
        1 => any::<u16>().prop_map(Graft::Long),
    ]
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// Puts the graft in the place of the `at`-th node below `value`.
fn put(value: &mut Value, at: &mut usize, graft: &Graft) {
    let hit = |at: &mut usize| {
        let hit = *at == 0;
        *at = at.wrapping_sub(1);
        hit
    };
    match value {
        Value::Array(list) => {
            for i in 0..list.len() {
                if hit(at) {
                    match graft {
                        Graft::Gone => drop(list.remove(i)),
                        other => list[i] = grown(&list[i], other),
                    }
                    return;
                }
                let before = count(&list[i]) - 1;
                if *at < before {
                    return put(&mut list[i], at, graft);
                }
                *at -= before;
            }
        }
        Value::Object(map) => {
            for key in map.keys().cloned().collect::<Vec<_>>() {
                if hit(at) {
                    match graft {
                        Graft::Gone => drop(map.remove(&key)),
                        other => drop(map.insert(key.clone(), grown(&map[&key], other))),
                    }
                    return;
                }
                let before = count(&map[&key]) - 1;
                if *at < before {
                    return put(&mut map[&key], at, graft);
                }
                *at -= before;
            }
        }
        _ => {}
    }
}

fn grown(old: &Value, graft: &Graft) -> Value {
    match graft {
        Graft::Value(value) => value.clone(),
        Graft::Gone => Value::Null,
        // Less deep than what JSON readers refuse, so that the readers behind them see it.
        Graft::Nested(depth) => {
            (0..depth % 100).fold(old.clone(), |inner, _| json!({"a": [inner]}))
        }
        Graft::Many(times) => Value::Array(vec![old.clone(); usize::from(*times)]),
        Graft::Long(length) => json!("x".repeat(usize::from(*length))),
    }
}

/// One of the seeds, with a few of its nodes changed.
pub fn tree(seeds: Vec<Value>) -> impl Strategy<Value = Value> {
    let grafts = proptest::collection::vec((any::<u32>(), graft()), 0..4);
    (proptest::sample::select(seeds), grafts).prop_map(|(mut seed, grafts)| {
        for (at, graft) in grafts {
            let nodes = count(&seed) - 1;
            if nodes > 0 {
                put(&mut seed, &mut (at as usize % nodes), &graft);
            }
        }
        seed
    })
}

#[test]
fn every_node_is_reached() {
    let seed = json!({"a": [1, {"b": 2}], "c": {"d": []}});
    let nodes = count(&seed) - 1;
    let mut seen = std::collections::BTreeSet::new();
    for at in 0..nodes {
        let mut bent = seed.clone();
        put(&mut bent, &mut at.clone(), &Graft::Value(json!("here")));
        assert_ne!(bent, seed, "node {at}");
        seen.insert(bent.to_string());
    }
    assert_eq!(seen.len(), nodes, "each change is another");
}
