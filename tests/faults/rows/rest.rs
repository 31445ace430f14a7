//! Rows that other tests show.

use crate::row::{Row, Tried};

pub fn rows() -> Vec<Row> {
    let elsewhere = |number, fault, promise, tests| Row {
        number,
        fault,
        promise,
        tried: Tried::Elsewhere { tests },
    };
    vec![
        elsewhere(
            8,
            "the container runtime hangs while the rep is well",
            "the Cell stays, nothing is moved, and it gets no new work",
            "tests/e2e/refusals/hung.rs",
        ),
        elsewhere(
            39,
            "events are told twice, or in another order",
            "they are taken once",
            "src/presence/view/tests.rs; `make histories` (tests/histories/watches.rs)",
        ),
        elsewhere(
            42,
            "CRDs are older or newer than the programs",
            "unknown fields are kept; a program that needs more says so and does not start",
            "tests/system/old_cluster.rs, tests/system/unreadable.rs",
        ),
        elsewhere(
            43,
            "an object in the store can't be read",
            "it alone is passed over, with the reason in the log: what runs for it goes on, and nothing else waits",
            "tests/system/unreadable.rs",
        ),
        elsewhere(
            44,
            "objects that are too large",
            "they are refused with the field's name",
            "tests/system/api.rs, tests/rules/generated.rs",
        ),
        elsewhere(
            45,
            "a tenant writes records that are not his",
            "he may not",
            "tests/chart/tenants.rs",
        ),
        elsewhere(
            46,
            "a rep uses its rights on what is another's",
            "it may not",
            "tests/chart/hostile_rep.rs, tests/presence/etcd/roles.rs",
        ),
        elsewhere(
            48,
            "certificates are renewed while the programs run",
            "the lease lasts",
            "tests/presence/etcd/rotation.rs",
        ),
    ]
}
