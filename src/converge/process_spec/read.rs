//! Reads a pod template field by field, and collects what a plain process can't give.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::probes::Of;
use super::{ProcessSpec, SpecPort};

/// The grace period of a pod that names none, as in Kubernetes.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Whether a field says anything: an empty list or object does not.
pub(super) fn is_set<T: Default + PartialEq>(field: &Option<T>) -> bool {
    field.as_ref().is_some_and(|value| *value != T::default())
}

/// Collects what can't be given.
#[derive(Default)]
pub(super) struct Refused {
    pub(super) list: Vec<String>,
}

impl Refused {
    pub(super) fn say(&mut self, what: &str) {
        self.list.push(what.into());
    }

    fn each(&mut self, table: &[(bool, &str)]) {
        for (set, what) in table {
            if *set {
                self.say(what);
            }
        }
    }

    /// Judges the pod's own fields and returns its grace period. All fields are named, so that a new one of a
    /// later Kubernetes fails to compile here.
    pub(super) fn pod(&mut self, pod: &PodSpec) -> Duration {
        let PodSpec {
            active_deadline_seconds,
            affinity,
            automount_service_account_token,
            containers: _,
            dns_config,
            dns_policy,
            enable_service_links: _,
            ephemeral_containers,
            host_aliases,
            host_ipc,
            host_network,
            host_pid,
            host_users,
            hostname,
            hostname_override,
            image_pull_secrets: _,
            init_containers,
            node_name,
            node_selector,
            os,
            overhead,
            preemption_policy,
            priority,
            priority_class_name,
            readiness_gates,
            resource_claims,
            resources: _,
            restart_policy: _,
            runtime_class_name,
            scheduler_name,
            scheduling_gates,
            scheduling_group,
            security_context,
            service_account,
            service_account_name,
            set_hostname_as_fqdn,
            share_process_namespace,
            subdomain,
            termination_grace_period_seconds,
            tolerations: _,
            topology_spread_constraints,
            volumes,
        } = pod;
        self.each(&[
            (is_set(volumes), "volumes (spec.volumes)"),
            (
                is_set(init_containers),
                "init containers (spec.initContainers)",
            ),
            (
                is_set(ephemeral_containers),
                "ephemeral containers (spec.ephemeralContainers)",
            ),
            (
                is_set(node_selector),
                "a choice of nodes (spec.nodeSelector)",
            ),
            (is_set(affinity), "a choice of nodes (spec.affinity)"),
            (node_name.is_some(), "a certain node (spec.nodeName)"),
            (
                is_set(topology_spread_constraints),
                "a spread of its own (spec.topologySpreadConstraints)",
            ),
            (
                scheduler_name.is_some(),
                "another scheduler (spec.schedulerName)",
            ),
            (
                is_set(scheduling_gates),
                "scheduling gates (spec.schedulingGates)",
            ),
            (
                is_set(scheduling_group),
                "a scheduling group (spec.schedulingGroup)",
            ),
            (priority.is_some(), "a priority (spec.priority)"),
            (
                priority_class_name.is_some(),
                "a priority (spec.priorityClassName)",
            ),
            (
                preemption_policy.is_some(),
                "a priority (spec.preemptionPolicy)",
            ),
            (
                is_set(host_network),
                "a network it shares on purpose (spec.hostNetwork)",
            ),
            (is_set(host_ipc), "namespaces (spec.hostIPC)"),
            (is_set(host_pid), "namespaces (spec.hostPID)"),
            (host_users.is_some(), "namespaces (spec.hostUsers)"),
            (
                is_set(share_process_namespace),
                "namespaces (spec.shareProcessNamespace)",
            ),
            (is_set(hostname), "a host name (spec.hostname)"),
            (
                is_set(hostname_override),
                "a host name (spec.hostnameOverride)",
            ),
            (is_set(subdomain), "a host name (spec.subdomain)"),
            (
                is_set(set_hostname_as_fqdn),
                "a host name (spec.setHostnameAsFQDN)",
            ),
            (
                is_set(dns_config),
                "name resolution of its own (spec.dnsConfig)",
            ),
            (
                dns_policy.is_some(),
                "name resolution of its own (spec.dnsPolicy)",
            ),
            (
                is_set(host_aliases),
                "name resolution of its own (spec.hostAliases)",
            ),
            (
                is_set(security_context),
                "a security context (spec.securityContext)",
            ),
            (
                is_set(service_account),
                "a service account (spec.serviceAccount)",
            ),
            (
                is_set(service_account_name),
                "a service account (spec.serviceAccountName)",
            ),
            (
                *automount_service_account_token == Some(true),
                "a service account (spec.automountServiceAccountToken)",
            ),
            (
                is_set(runtime_class_name),
                "a runtime class (spec.runtimeClassName)",
            ),
            (
                is_set(overhead),
                "a runtime class's overhead (spec.overhead)",
            ),
            (
                is_set(resource_claims),
                "resource claims (spec.resourceClaims)",
            ),
            (
                is_set(readiness_gates),
                "readiness gates (spec.readinessGates)",
            ),
            (
                active_deadline_seconds.is_some(),
                "a time limit (spec.activeDeadlineSeconds)",
            ),
            (
                os.as_ref().is_some_and(|os| os.name != "linux"),
                "another operating system (spec.os)",
            ),
        ]);
        match termination_grace_period_seconds {
            Some(seconds) => Duration::from_secs(u64::try_from(*seconds).unwrap_or(0)),
            None => DEFAULT_GRACE,
        }
    }

    /// Judges the one container. `None` where nothing can be made of it.
    pub(super) fn container(
        &mut self,
        container: &Container,
        metadata: Option<&ObjectMeta>,
        grace: Duration,
    ) -> Option<ProcessSpec> {
        let Container {
            args,
            command,
            env,
            env_from,
            image: _,
            image_pull_policy: _,
            lifecycle,
            liveness_probe,
            name: _,
            ports,
            readiness_probe,
            resize_policy: _,
            resources: _,
            restart_policy,
            restart_policy_rules,
            security_context,
            startup_probe,
            stdin,
            stdin_once,
            termination_message_path,
            termination_message_policy,
            tty,
            volume_devices,
            volume_mounts,
            working_dir,
        } = container;
        let command = command.clone().unwrap_or_default();
        let at = |field: &str| format!("spec.containers[0].{field}");
        if command.first().is_none_or(|program| program.is_empty()) {
            self.say(&format!(
                "the image's own command ({} must be set)",
                at("command")
            ));
        }
        for (set, what, field) in [
            (is_set(volume_mounts), "volumes", "volumeMounts"),
            (is_set(volume_devices), "volumes", "volumeDevices"),
            (
                is_set(env_from),
                "environment from other objects",
                "envFrom",
            ),
            (is_set(lifecycle), "lifecycle hooks", "lifecycle"),
            (
                is_set(security_context),
                "a security context",
                "securityContext",
            ),
            (
                restart_policy.is_some(),
                "a restart policy per container",
                "restartPolicy",
            ),
            (
                is_set(restart_policy_rules),
                "a restart policy per container",
                "restartPolicyRules",
            ),
            (is_set(stdin), "standard input", "stdin"),
            (is_set(stdin_once), "standard input", "stdinOnce"),
            (is_set(tty), "a terminal", "tty"),
            (
                termination_message_path.is_some(),
                "termination messages",
                "terminationMessagePath",
            ),
            (
                termination_message_policy.is_some(),
                "termination messages",
                "terminationMessagePolicy",
            ),
        ] {
            if set {
                self.say(&format!("{what} ({})", at(field)));
            }
        }
        let env = self.env(env.as_deref().unwrap_or_default(), metadata);
        let ports = self.ports(ports.as_deref().unwrap_or_default());
        let mut probe = |of: Of, probe: &Option<Probe>| {
            probe
                .as_ref()
                .filter(|probe| **probe != Probe::default())
                .and_then(|probe| self.probe(of, probe, &ports))
        };
        let readiness = probe(Of::Readiness, readiness_probe);
        let liveness = probe(Of::Liveness, liveness_probe);
        let startup = probe(Of::Startup, startup_probe);
        Some(ProcessSpec {
            command,
            args: args.clone().unwrap_or_default(),
            env,
            working_dir: working_dir.clone().filter(|dir| !dir.is_empty()),
            ports,
            readiness,
            liveness,
            startup,
            grace,
        })
    }

    fn ports(&mut self, list: &[ContainerPort]) -> Vec<SpecPort> {
        let mut ports = Vec::with_capacity(list.len());
        for (
            i,
            ContainerPort {
                container_port,
                host_ip,
                host_port,
                name,
                protocol,
            },
        ) in list.iter().enumerate()
        {
            let field = |name: &str| format!("spec.containers[0].ports[{i}].{name}");
            if protocol.as_ref().is_some_and(|protocol| protocol != "TCP") {
                self.say(&format!("ports other than TCP ({})", field("protocol")));
            }
            if is_set(host_ip) {
                self.say(&format!(
                    "a port on a certain address ({})",
                    field("hostIP")
                ));
            }
            let wanted = host_port.filter(|port| *port != 0);
            match (port(*container_port), wanted.map(port)) {
                (None, _) => self.say(&format!(
                    "port {container_port} ({})",
                    field("containerPort")
                )),
                (_, Some(None)) => self.say(&format!(
                    "port {} ({})",
                    wanted.unwrap_or(0),
                    field("hostPort")
                )),
                (Some(container_port), host_port) => {
                    ports.push(SpecPort {
                        container_port,
                        host_port: host_port.flatten(),
                        name: name.clone(),
                    });
                }
            }
        }
        ports
    }
}

pub(super) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}
