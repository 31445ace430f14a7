//! What a template asks that a Cell with executor Pods can't give: the auction is no scheduler, and says so.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

/// Why no Cell with executor Pods can take the template, naming each field; `None` if they can. `unread` is what
/// could not be read of its needs. What is left to a scheduler must only be able to run.
pub fn refusal(pod: &PodSpec, unread: Vec<String>) -> Option<String> {
    let PodSpec {
        containers,
        init_containers,
        host_network,
        resource_claims,
        scheduler_name,
        scheduling_gates,
        scheduling_group,
        topology_spread_constraints,
        volumes,
        // Read by `needs`, by `neighbours` and by the count of resources.
        affinity: _,
        node_name: _,
        node_selector: _,
        tolerations: _,
        resources: _,
        overhead: _,
        // The API server's and the kubelet's.
        active_deadline_seconds: _,
        automount_service_account_token: _,
        dns_config: _,
        dns_policy: _,
        enable_service_links: _,
        ephemeral_containers: _,
        host_aliases: _,
        host_ipc: _,
        host_pid: _,
        host_users: _,
        hostname: _,
        hostname_override: _,
        image_pull_secrets: _,
        os: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        readiness_gates: _,
        restart_policy: _,
        runtime_class_name: _,
        security_context: _,
        service_account: _,
        service_account_name: _,
        set_hostname_as_fqdn: _,
        share_process_namespace: _,
        subdomain: _,
        termination_grace_period_seconds: _,
    } = pod;
    let all = || {
        let init = init_containers.iter().flatten().enumerate();
        let init = init.map(|(i, one)| (format!("spec.initContainers[{i}]"), one));
        let others = containers.iter().enumerate();
        init.chain(others.map(|(i, one)| (format!("spec.containers[{i}]"), one)))
    };
    let no_image = all().find(|(_, container)| container.image.is_none());
    if let Some((path, _)) = no_image {
        return Some(format!(
            "a Cell with executor Pods can't run it: spec.template.{path}.image is not set"
        ));
    }
    if scheduler_name.is_some() {
        return None;
    }
    let mut found = unread;
    let mut say = |asked: bool, field: &str| found.extend(asked.then(|| field.to_owned()));
    let spread = topology_spread_constraints.iter().flatten();
    for (i, one) in spread.enumerate() {
        say(
            one.when_unsatisfiable != "ScheduleAnyway",
            &format!("spec.topologySpreadConstraints[{i}] (whenUnsatisfiable: DoNotSchedule)"),
        );
    }
    let is_set = |list: Option<usize>| list.is_some_and(|length| length > 0);
    say(
        is_set(resource_claims.as_ref().map(Vec::len)),
        "spec.resourceClaims",
    );
    say(
        is_set(scheduling_gates.as_ref().map(Vec::len)),
        "spec.schedulingGates",
    );
    say(scheduling_group.is_some(), "spec.schedulingGroup");
    for (i, volume) in volumes.iter().flatten().enumerate() {
        say(is_bound_to_nodes(volume), &format!("spec.volumes[{i}]"));
    }
    for (path, container) in all() {
        host_ports(&path, container, *host_network == Some(true), &mut say);
        for field in extended(container) {
            say(true, &format!("{path}.resources.{field}"));
        }
    }
    match found.as_slice() {
        [] => None,
        fields => Some(format!(
            "a Cell with executor Pods can't honour: {}; set spec.template.spec.schedulerName to leave the placement to a scheduler",
            fields.join(", ")
        )),
    }
}

/// A volume that may exist on some nodes only, or is made when a scheduler has chosen one.
fn is_bound_to_nodes(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Ports of the node: two Pods can't have the same.
fn host_ports(
    path: &str,
    container: &Container,
    host_network: bool,
    say: &mut impl FnMut(bool, &str),
) {
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let asked = port.host_port.is_some_and(|port| port != 0);
        say(asked, &format!("{path}.ports[{i}].hostPort"));
        say(
            host_network && !asked,
            &format!("{path}.ports[{i}] with spec.hostNetwork"),
        );
    }
}

/// Resources that are not counted.
fn extended(container: &Container) -> Vec<String> {
    let Some(wanted) = &container.resources else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (which, map) in [("requests", &wanted.requests), ("limits", &wanted.limits)] {
        for name in map.iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                fields.push(format!("{which}[{name}]"));
            }
        }
    }
    if wanted
        .claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        fields.push("claims".into());
    }
    fields
}
