//! The rights that are asked after: those of the plugin's verbs, and those of an installation.

use super::ask::Question;
use crate::api::GROUP;

/// What the verbs of the plugin need, and for what.
pub fn of_verbs(work: Option<&str>) -> Vec<Question<'_>> {
    const SEE: &str = "distribution, top and recoveries show no Cells";
    const SEE_WORK: &str = "distribution and trace show no instances and Tasks";
    const CELLS: &str = "you can't cordon, uncordon or evacuate Cells";
    const RETIRE: &str = "you can't retire instances";
    const CANCEL: &str = "you can't cancel Tasks";
    vec![
        (SEE, "list", GROUP, "cells", None),
        (SEE, "watch", GROUP, "cells", None),
        (SEE_WORK, "list", GROUP, "actuallrps", work),
        (SEE_WORK, "list", GROUP, "tasks", work),
        (CELLS, "patch", GROUP, "cells", None),
        (RETIRE, "delete", GROUP, "actuallrps", work),
        (CANCEL, "patch", GROUP, "tasks", work),
        (
            "trace shows no Events",
            "list",
            "events.k8s.io",
            "events",
            Some("default"),
        ),
    ]
}

/// What the chart creates by its defaults.
pub fn to_install(own: &str) -> Vec<Question<'_>> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const ADMISSION: &str = "admissionregistration.k8s.io";
    const FLOW: &str = "flowcontrol.apiserver.k8s.io";
    let wide = [
        ("", "namespaces"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        (RBAC, "clusterroles"),
        (RBAC, "clusterrolebindings"),
        (ADMISSION, "validatingadmissionpolicies"),
        (ADMISSION, "validatingadmissionpolicybindings"),
        (FLOW, "flowschemas"),
        (FLOW, "prioritylevelconfigurations"),
    ];
    let narrow = [
        ("", "secrets"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("apps", "deployments"),
        ("apps", "daemonsets"),
        ("policy", "poddisruptionbudgets"),
        (RBAC, "roles"),
        (RBAC, "rolebindings"),
    ];
    let wide = wide
        .into_iter()
        .map(|(group, kind)| ("", "create", group, kind, None));
    let narrow = narrow
        .into_iter()
        .map(|(group, kind)| ("", "create", group, kind, Some(own)));
    wide.chain(narrow).collect()
}
