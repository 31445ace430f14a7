//! Rows that other tests show.

use crate::row::{Row, Tried};

pub fn rows() -> Vec<Row> {
    let elsewhere = |number, fault, promise, tests, without, said| Row {
        number,
        fault,
        promise,
        tried: Tried::Elsewhere {
            tests,
            without,
            said,
        },
    };
    vec![
        elsewhere(
            8,
            "the container runtime hangs while the rep is well",
            "the Cell stays, nothing is moved, and it gets no new work",
            "tests/e2e/refusals/hung.rs, with a real container runtime; what the controller makes of its Node: tests/system/nodes.rs (`a_node_that_takes_no_pods_shows_in_its_cell_and_is_left_alone`)",
            "a Node that is not ready takes no Pods (taken out against the second test)",
            "its Cell did not show NodeNotReady within 60 s",
        ),
        elsewhere(
            39,
            "events are told twice, or in another order",
            "they are taken once",
            "src/presence/view/tests.rs (`changes_are_told_once_and_old_ones_not_at_all`); `make histories` (tests/histories/watches.rs)",
            "what is as old as what is known of a Cell, or older, is passed over",
            "a departure that the list had told was told again",
        ),
        elsewhere(
            42,
            "CRDs are older or newer than the programs",
            "unknown fields are kept; a program that needs more says so and does not start",
            "tests/system/old_cluster.rs (`crds_of_another_version_are_told_apart`), tests/system/unreadable.rs",
            "what the CRDs in the cluster lack is looked for at start",
            "the program went on, and did not name the CRD",
        ),
        elsewhere(
            43,
            "an object in the store can't be read",
            "it alone is passed over, with the reason in the log: what runs for it goes on, and nothing else waits",
            "tests/system/unreadable.rs (`one_that_can_not_be_read_stops_nothing_else`)",
            "an object that can't be read is told from a list that can't",
            "the controller that listed it was not ready within 60 s",
        ),
        elsewhere(
            44,
            "objects that are too large",
            "they are refused with the field's name",
            "tests/system/api.rs (`what_the_schema_can_judge_is_refused_with_the_remedy`); that every field has a bound: tests/rules/generated.rs",
            "the bounds of the fields (taken out: that of `annotation`)",
            "an annotation of 10,241 characters was taken",
        ),
        elsewhere(
            45,
            "a tenant writes records that are not his",
            "he may not",
            "tests/chart/tenants.rs (`a_tenant_writes_his_own_records_and_no_others`)",
            "the chart's part of the role `edit` has no right to write ActualLRPs",
            "the tenant's ActualLRP was created",
        ),
        elsewhere(
            46,
            "a rep uses its rights on what is another's",
            "it may not",
            "tests/chart/hostile_rep.rs (`chart_rbac_confines_a_rep_to_its_node`), tests/presence/etcd/roles.rs (`a_cells_certificate_is_worth_its_own_key`)",
            "the chart's admission policy for Leases; a role in etcd of one key only (taken out one by one)",
            "the Lease of another node was written, so that the policy was waited for to no avail for 60 s; the rep passed its check under another Cell's name",
        ),
        elsewhere(
            48,
            "certificates are renewed while the programs run",
            "the lease lasts",
            "tests/presence/etcd/rotation.rs (`a_renewed_certificate_is_in_use_before_the_old_one_ends`)",
            "the certificate files are looked at again and again",
            "no connection was made with the new files within 40 s",
        ),
    ]
}
