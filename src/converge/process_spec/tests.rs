//! What a plain process can and can't give, by template.

use super::*;
use serde_json::{Value, json};

fn text(text: &str) -> EnvValue {
    EnvValue::Text(text.into())
}

fn read(spec: Value) -> Result<ProcessSpec, Unsupported> {
    let template: PodTemplateSpec =
        serde_json::from_value(json!({ "spec": spec })).expect("a template");
    ProcessSpec::from_template(&template)
}

/// One container with a command and what else is given.
fn one(more: Value) -> Value {
    let mut container = json!({"name": "web", "command": ["run"]});
    for (key, value) in more.as_object().expect("an object") {
        container[key] = value.clone();
    }
    json!({ "containers": [container] })
}

#[test]
fn a_plain_template_is_read_whole() {
    let mut spec = one(json!({
        "image": "web:1", "imagePullPolicy": "Always", "resources": {"requests": {"memory": "1Mi"}},
        "args": ["--port", "$(PORT)"], "workingDir": "/srv",
        "env": [{"name": "A", "value": "1"}, {"name": "B"}],
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}, {"containerPort": 9, "hostPort": 10}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "up"}, "periodSeconds": 3, "initialDelaySeconds": 1},
        "volumeMounts": [], "securityContext": {},
    }));
    spec["terminationGracePeriodSeconds"] = json!(7);
    spec["restartPolicy"] = json!("Always");
    assert_eq!(
        read(spec),
        Ok(ProcessSpec {
            command: vec!["run".into()],
            args: vec!["--port".into(), "$(PORT)".into()],
            env: vec![("A".into(), text("1")), ("B".into(), text(""))],
            working_dir: Some("/srv".into()),
            ports: vec![
                SpecPort {
                    container_port: 8080,
                    host_port: None,
                    name: Some("http".into())
                },
                SpecPort {
                    container_port: 9,
                    host_port: Some(10),
                    name: None
                },
            ],
            readiness: Some(Probe {
                check: Check::Http {
                    port: 8080,
                    path: "/up".into(),
                    headers: vec![]
                },
                initial_delay: Duration::from_secs(1),
                period: Duration::from_secs(3),
                timeout: Duration::from_secs(1),
                successes: 1,
                failures: 3,
                grace: None,
            }),
            liveness: None,
            startup: None,
            grace: Duration::from_secs(7),
        })
    );
}

#[test]
fn a_probe_by_number_needs_no_declared_port() {
    let spec =
        read(one(json!({"readinessProbe": {"tcpSocket": {"port": 81}}}))).expect("supported");
    assert_eq!(
        spec.readiness.expect("a probe").check,
        Check::Tcp { port: 81 }
    );
    assert_eq!(spec.grace, Duration::from_secs(30));
}

#[test]
fn all_three_probes_are_read() {
    let spec = read(one(json!({
        "readinessProbe": {"exec": {"command": ["ready", "-q"]}, "successThreshold": 2, "timeoutSeconds": 0},
        "livenessProbe": {
            "tcpSocket": {"port": 81}, "periodSeconds": 2, "timeoutSeconds": 3, "initialDelaySeconds": 4,
            "failureThreshold": 5, "successThreshold": 1, "terminationGracePeriodSeconds": 6,
        },
        "startupProbe": {"httpGet": {"port": 81, "httpHeaders": [{"name": "A", "value": "b"}]}},
    })))
    .expect("supported");
    let seconds = Duration::from_secs;
    let default = Probe {
        check: Check::Exec {
            command: vec!["ready".into(), "-q".into()],
        },
        initial_delay: Duration::ZERO,
        period: seconds(10),
        timeout: seconds(1),
        successes: 2,
        failures: 3,
        grace: None,
    };
    assert_eq!(spec.readiness, Some(default.clone()));
    assert_eq!(
        spec.liveness,
        Some(Probe {
            check: Check::Tcp { port: 81 },
            initial_delay: seconds(4),
            period: seconds(2),
            timeout: seconds(3),
            successes: 1,
            failures: 5,
            grace: Some(seconds(6)),
        })
    );
    assert_eq!(
        spec.startup,
        Some(Probe {
            check: Check::Http {
                port: 81,
                path: "/".into(),
                headers: vec![("A".into(), "b".into())],
            },
            successes: 1,
            ..default
        })
    );
}

#[test]
fn every_refusal_names_its_field() {
    let pod = |more: Value| {
        let mut spec = one(json!({}));
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        spec
    };
    let probe = |probe: Value| one(json!({ "readinessProbe": probe }));
    for (spec, expected) in [
        (
            json!({"containers": [{"name": "a", "image": "i"}]}),
            "the image's own command (spec.containers[0].command must be set)",
        ),
        (
            json!({"containers": [{"name": "a", "args": ["x"]}]}),
            "the image's own command (spec.containers[0].command must be set)",
        ),
        (
            json!({"containers": []}),
            "nothing to run (spec.containers is empty)",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            "several containers (spec.containers has 2)",
        ),
        (
            pod(json!({"volumes": [{"name": "v"}]})),
            "volumes (spec.volumes)",
        ),
        (
            pod(json!({"initContainers": [{"name": "i"}]})),
            "init containers (spec.initContainers)",
        ),
        (
            pod(json!({"ephemeralContainers": [{"name": "i"}]})),
            "ephemeral containers (spec.ephemeralContainers)",
        ),
        (
            pod(json!({"nodeSelector": {"a": "b"}})),
            "a choice of nodes (spec.nodeSelector)",
        ),
        (
            pod(json!({"affinity": {"nodeAffinity": {}}})),
            "a choice of nodes (spec.affinity)",
        ),
        (
            pod(json!({"nodeName": "n"})),
            "a certain node (spec.nodeName)",
        ),
        (
            pod(json!({"hostNetwork": true})),
            "a network it shares on purpose (spec.hostNetwork)",
        ),
        (pod(json!({"hostPID": true})), "namespaces (spec.hostPID)"),
        (
            pod(json!({"securityContext": {"runAsUser": 1}})),
            "a security context (spec.securityContext)",
        ),
        (
            pod(json!({"serviceAccountName": "s"})),
            "a service account (spec.serviceAccountName)",
        ),
        (
            pod(json!({"schedulerName": "mine"})),
            "another scheduler (spec.schedulerName)",
        ),
        (
            pod(json!({"activeDeadlineSeconds": 9})),
            "a time limit (spec.activeDeadlineSeconds)",
        ),
        (
            pod(json!({"os": {"name": "windows"}})),
            "another operating system (spec.os)",
        ),
        (
            one(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "volumes (spec.containers[0].volumeMounts)",
        ),
        (
            one(json!({"envFrom": [{"secretRef": {"name": "s"}}]})),
            "environment from other objects (spec.containers[0].envFrom)",
        ),
        (
            one(json!({"env": [{"name": "A", "valueFrom": {}}]})),
            "environment from other objects (spec.containers[0].env[0].valueFrom of A)",
        ),
        (
            one(
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            ),
            "environment from other objects (spec.containers[0].env[0].valueFrom of A)",
        ),
        (
            one(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}}]}),
            ),
            "the field spec.serviceAccountName (spec.containers[0].env[0].valueFrom.fieldRef of A)",
        ),
        (
            one(json!({"lifecycle": {"preStop": {}}})),
            "lifecycle hooks (spec.containers[0].lifecycle)",
        ),
        (
            one(json!({"securityContext": {"privileged": true}})),
            "a security context (spec.containers[0].securityContext)",
        ),
        (
            one(json!({"tty": true})),
            "a terminal (spec.containers[0].tty)",
        ),
        (
            one(json!({"ports": [{"containerPort": 53, "protocol": "UDP"}]})),
            "ports other than TCP (spec.containers[0].ports[0].protocol)",
        ),
        (
            one(json!({"ports": [{"containerPort": 70000}]})),
            "port 70000 (spec.containers[0].ports[0].containerPort)",
        ),
        (
            one(json!({"ports": [{"containerPort": 1, "hostPort": -1}]})),
            "port -1 (spec.containers[0].ports[0].hostPort)",
        ),
        (
            probe(json!({"exec": {"command": []}})),
            "a readiness probe without a command (spec.containers[0].readinessProbe.exec.command)",
        ),
        (
            probe(json!({"periodSeconds": 1})),
            "a readiness probe that tries nothing (spec.containers[0].readinessProbe)",
        ),
        (
            probe(json!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}})),
            "a readiness probe of several kinds (spec.containers[0].readinessProbe)",
        ),
        (
            one(json!({"livenessProbe": {"grpc": {"port": 1}}})),
            "a liveness probe by gRPC (spec.containers[0].livenessProbe.grpc)",
        ),
        (
            one(json!({"livenessProbe": {"httpGet": {"port": "web"}}})),
            "a liveness probe of a port that is not declared (spec.containers[0].livenessProbe.httpGet.port)",
        ),
        (
            one(json!({"startupProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
            "a startup probe that must succeed more than once (spec.containers[0].startupProbe.successThreshold)",
        ),
        (
            one(json!({"startupProbe": {"tcpSocket": {"port": 1, "host": "h"}}})),
            "a startup probe of another host (spec.containers[0].startupProbe.tcpSocket.host)",
        ),
        (
            probe(json!({"grpc": {"port": 1}})),
            "a readiness probe by gRPC (spec.containers[0].readinessProbe.grpc)",
        ),
        (
            probe(json!({"httpGet": {"port": 1, "scheme": "HTTPS"}})),
            "a readiness probe by TLS (spec.containers[0].readinessProbe.httpGet.scheme)",
        ),
        (
            probe(json!({"httpGet": {"port": 1, "path": "/\r\nX: y"}})),
            "a request with control characters (spec.containers[0].readinessProbe.httpGet)",
        ),
        (
            probe(json!({"tcpSocket": {"port": "web"}})),
            "a readiness probe of a port that is not declared (spec.containers[0].readinessProbe.tcpSocket.port)",
        ),
    ] {
        let refusals = read(spec.clone()).expect_err(expected).refusals;
        assert_eq!(refusals, [expected], "{spec}");
    }
}

#[test]
fn all_refusals_are_told_at_once() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "volumes": [{"name": "v"}]});
    assert_eq!(
        read(spec).unwrap_err().to_string(),
        "a Cell with executor Process can't give: volumes (spec.volumes), several containers (spec.containers has 2)"
    );
}

#[test]
fn references_are_expanded_as_kubernetes_does() {
    let env: BTreeMap<_, _> = [
        ("A".to_string(), "1".to_string()),
        ("B".into(), "$(A)".into()),
    ]
    .into();
    for (text, expected) in [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(A)"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("cost: 5$", "cost: 5$"),
        ("$()", "$()"),
        ("ä$(A)ö", "ä1ö"),
    ] {
        assert_eq!(expand(text, &env), expected, "{text}");
    }
}

#[test]
fn the_cells_own_variables_win_and_can_be_referred_to() {
    let spec = read(one(json!({
        "args": ["-p", "$(PORT)", "$(URL)"],
        "env": [{"name": "PORT", "value": "8080"}, {"name": "URL", "value": "http://x:$(PORT)"}, {"name": "LATE", "value": "$(LATER)"}, {"name": "LATER", "value": "1"}],
    })))
    .expect("supported");
    let given = BTreeMap::from([("PORT".to_string(), "61001".to_string())]);
    let (argv, env) = spec.expand(&given, |field| unreachable!("{field:?}"));
    assert_eq!(argv, ["run", "-p", "61001", "http://x:61001"]);
    assert_eq!(env["PORT"], "61001");
    assert_eq!(env["LATE"], "$(LATER)");
}
