//! The installation's life under the Pod Security Standard "restricted": installed, used, upgraded, rolled back, moved to another
//! presence store, uninstalled, installed again and removed. The work runs on through all of it.

use crate::{
    installed::{NAMESPACE, SOON, import_image},
    site::Site,
    stream::{Stream, run},
    support::{Failure, eventually},
};
use local_cluster::{Etcd, EtcdOptions, NodesOptions, binary};
use std::{fs, path::Path, process::Command};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/diego-operator");

const WORK: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: web, namespace: default}
spec:
  instances: 4
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: test-app:dev
        command: [sh, -c, 'mkdir -p /tmp/w; exec httpd -f -p 8080 -h /tmp/w']
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: Task
metadata: {name: sum, namespace: default}
spec:
  ttlSecondsAfterFinished: 3600
  template: {spec: {containers: [{name: sum, image: test-app:dev, command: [sh, -c, 'echo -n 42 >/dev/termination-log']}]}}
";

/// Name and instance of all instances of `web`.
const INSTANCES: &str =
    "get alrp -o jsonpath={range.items[*]}{.metadata.name}={.status.instanceGuid},{end}";
/// Uid and restarts of all their Pods.
const PODS: &str = "get pods -l diego.cloudfoundry.org/desired-lrp=web -o jsonpath={range.items[*]}{.metadata.uid}={.status.containerStatuses[0].restartCount},{end}";
const RUNNING: &str = "get dlrp web -o jsonpath={.status.running}";
const REPS: &str = "get pods -n diego-system -l app.kubernetes.io/component=rep -o jsonpath={.items[*].metadata.name}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_runs_on_through_all_that_is_done_to_the_installation() -> Result<(), Failure> {
    let site = Site::start(NodesOptions::count(2)).await?;
    import_image(&site).await?;
    site.kubectl("create namespace diego-system").await?;
    site.kubectl("label namespace diego-system pod-security.kubernetes.io/enforce=restricted")
        .await?;
    let previous = previous_version(site.dir())?;
    let set = "--namespace diego-system --set image.tag=dev --set rep.minReadySeconds=0 --wait --timeout 2m";

    // Limited to nodes of which there is none: the test says what is missing.
    site.helm(&format!(
        "install diego {previous} {set} --set rep.nodeSelector.diego=yes --set helmTest.waitSeconds=3"
    ))
    .await?;
    let (passed, said) = run(&site, "helm test diego -n diego-system --logs").await?;
    assert!(!passed, "there is no Cell: {said}");
    assert!(said.contains("√ a controller leads"), "{said}");
    assert!(
        said.contains("× 0 of 0 Cells are Ready, wanted are 1; no rep has registered"),
        "{said}"
    );
    site.kubectl("label node --all diego=yes").await?;
    ready(&site).await?;

    // The next three commands, as they are printed.
    let notes = site.helm("get notes diego -n diego-system").await?;
    let commands = commands(&notes);
    let [cells, test, create, instances] = &commands[..] else {
        return Err(format!("not four commands: {commands:#?}").into());
    };
    let cells = Stream::start(&site, cells)?;
    for node in ["node-1", "node-2"] {
        let present = |line: &String| line.starts_with(node) && line.contains(" True ");
        cells.until(SOON, |lines| lines.iter().any(present)).await?;
    }
    let (passed, said) = run(&site, test).await?;
    assert!(passed, "{said}");
    assert!(said.contains("√ 2 of 2 Cells are Ready"), "{said}");
    // There is no registry.
    let (created, said) = run(
        &site,
        &create.replace("registry.k8s.io/pause:3.10", "pause:dev"),
    )
    .await?;
    assert!(created, "{said}");
    let instances = Stream::start(&site, instances)?;
    for name in ["hello-0", "hello-1", "hello-2"] {
        let runs = |line: &String| line.starts_with(name) && line.contains(" Running ");
        instances
            .until(SOON, |lines| lines.iter().any(runs))
            .await?;
    }
    drop((cells, instances));
    site.kubectl("delete dlrp hello").await?;
    site.until("get alrp,pods -o name", SOON, |left| left.is_empty())
        .await?;

    site.apply(WORK).await?;
    site.until(RUNNING, SOON, |running| running == "4").await?;
    let result = "get dtask sum -o jsonpath={.status.state}:{.status.result}";
    site.until(result, SOON, |task| task == "Completed:42")
        .await?;
    let before = site.kubectl(INSTANCES).await?;
    let pods = site.kubectl(PODS).await?;
    assert_eq!(pods.matches("=0,").count(), 4, "{pods}");

    // From here on no Cell is ever missing, and no instance another one.
    let states = Stream::start(
        &site,
        r#"kubectl get cells --watch -o 'jsonpath={.metadata.name} {.status.state}{"\n"}'"#,
    )?;
    let guids = Stream::start(
        &site,
        r#"kubectl get alrp --watch -o 'jsonpath={.metadata.name}={.status.instanceGuid}{"\n"}'"#,
    )?;
    states.until(SOON, |lines| lines.len() >= 2).await?;
    guids.until(SOON, |lines| lines.len() >= 4).await?;

    let column = "get cells";
    assert!(!site.kubectl(column).await?.contains("ZONE"));
    let reps = site.kubectl(REPS).await?;
    // Another log level, so that every Pod is replaced.
    site.helm(&format!(
        "upgrade diego {CHART} {set} --set log.level=debug"
    ))
    .await?;
    assert!(site.kubectl(column).await?.contains("ZONE"));
    assert_ne!(site.kubectl(REPS).await?, reps);
    works(&site, "5").await?;
    site.helm("rollback diego 1 -n diego-system --wait --timeout 2m")
        .await?;
    assert!(!site.kubectl(column).await?.contains("ZONE"));
    works(&site, "4").await?;

    // A second installation would act on the same Cells.
    for crds in ["true", "false"] {
        let second = format!(
            "install two {CHART} --namespace other --create-namespace --set crds.install={crds}"
        );
        let refusal = site.helm(&second).await.expect_err("two installations");
        let refusal = refusal.to_string();
        assert!(refusal.contains(r#"current value is "diego""#), "{refusal}");
        assert!(
            refusal.contains(r#"current value is "diego-system""#),
            "{refusal}"
        );
    }

    // To another presence store in three steps, with reps that are replaced slower than a presence lasts.
    let etcd = Etcd::start(EtcdOptions {
        address: Some(site.nodes.cluster().address()),
        ..EtcdOptions::default()
    })
    .await?;
    let endpoint = etcd.endpoints().remove(0);
    let upgrade = format!("upgrade diego {CHART} {set} --reset-then-reuse-values");
    site.helm(&format!("{upgrade} --set controller.replicas=0"))
        .await?;
    site.kubectl("wait --for=delete pod -n diego-system -l app.kubernetes.io/component=controller --timeout=60s")
        .await?;
    site.helm(&format!(
        "{upgrade} --set presence.store=etcd --set presence.etcd.endpoints={{{endpoint}}} --set rep.minReadySeconds=6"
    ))
    .await?;
    site.helm(&format!("{upgrade} --set controller.replicas=2"))
        .await?;
    let keys = Command::new(binary("etcdctl")?)
        .args([
            "--endpoints",
            &endpoint,
            "get",
            "",
            "--prefix",
            "--keys-only",
        ])
        .output()?;
    let keys = String::from_utf8(keys.stdout)?;
    for node in ["node-1", "node-2"] {
        assert!(keys.contains(node), "{keys}");
    }
    works(&site, "5").await?;

    // Uninstalled: what users made stays, and runs on.
    let said = site.helm("uninstall diego -n diego-system --wait").await?;
    for kind in ["cells", "desiredlrps", "actuallrps", "tasks"] {
        assert!(said.contains(kind), "it does not say what is kept: {said}");
    }
    let left = "get pods -n diego-system -l app.kubernetes.io/component!=test -o name";
    site.until(left, SOON, |pods| pods.is_empty()).await?;
    // Beside the fifth, which came last.
    assert!(site.kubectl(INSTANCES).await?.starts_with(&before));
    assert!(site.kubectl(PODS).await?.starts_with(&pods));
    drop(etcd);

    // Installed again, with the other store again: it takes over.
    site.helm(&format!("install diego {CHART} {set}")).await?;
    works(&site, "4").await?;
    assert_eq!(site.kubectl(INSTANCES).await?, before);
    assert_eq!(site.kubectl(PODS).await?, pods);
    let states = states.lines();
    assert!(
        states.iter().all(|line| line.ends_with(" Present")),
        "{states:#?}"
    );
    let mut guids = guids.lines();
    guids.retain(|line| !line.starts_with("web-4") && !line.ends_with('='));
    guids.sort();
    guids.dedup();
    assert_eq!(guids.join(",") + ",", before);

    // Removed for good, in the order of docs/install.md.
    site.kubectl(
        "delete desiredlrps.diego.cloudfoundry.org,tasks.diego.cloudfoundry.org --all --all-namespaces",
    )
    .await?;
    site.kubectl(
        "wait --for=delete actuallrps.diego.cloudfoundry.org --all --all-namespaces --timeout=1m",
    )
    .await?;
    site.until("get pods -o name", SOON, |pods| pods.is_empty())
        .await?;
    site.helm("uninstall diego -n diego-system").await?;
    let crds = ["cells", "desiredlrps", "actuallrps", "tasks"];
    let crds = crds.map(|kind| format!("{kind}.diego.cloudfoundry.org"));
    site.kubectl(&format!("delete crd {}", crds.join(" ")))
        .await?;
    let left = "get clusterroles,clusterrolebindings,validatingadmissionpolicies,flowschemas,crd -l app.kubernetes.io/part-of=diego -o name";
    assert_eq!(site.kubectl(left).await?, "");
    Ok(())
}

/// The chart as its version before would be: another number, and a Cell without the column Zone.
fn previous_version(dir: &Path) -> Result<String, Failure> {
    let chart = dir.join("previous");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(CHART)
        .arg(&chart)
        .status()?;
    assert!(copied.success());
    let crd = "templates/crds/diego.cloudfoundry.org_cells.yaml";
    let column = "    - jsonPath: .spec.zone\n      name: Zone\n      type: string\n";
    for (file, from, to) in [
        ("Chart.yaml", "\nversion: 0.1.0\n", "\nversion: 0.0.9\n"),
        (crd, column, ""),
    ] {
        let path = chart.join(file);
        let text = fs::read_to_string(&path)?;
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(&path, text.replacen(from, to, 1))?;
    }
    let mut package = Command::new(binary("helm")?);
    package
        .arg("package")
        .arg(&chart)
        .arg("--destination")
        .arg(dir);
    assert!(package.status()?.success());
    let package = dir.join("diego-operator-0.0.9.tgz");
    Ok(package.display().to_string())
}

/// The commands in NOTES.txt: what is indented, in paragraphs.
fn commands(notes: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;
    for line in notes.lines().filter(|line| line.starts_with("   ")) {
        let quotes = line.matches('\'').count() % 2 == 1;
        match commands.last_mut() {
            Some(last) if open => {
                last.push('\n');
                last.push_str(line);
            }
            _ => commands.push(line.trim().to_owned()),
        }
        open ^= quotes;
    }
    commands
}

/// Waits until both nodes are Cells that are Ready.
async fn ready(site: &Site) -> Result<(), Failure> {
    let cells = r#"get cells -o jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    site.until(cells, SOON, |cells| cells == "True True")
        .await
        .map(drop)
}

/// The controllers do what is asked of them: so many instances, with a leader that is there.
async fn works(site: &Site, instances: &str) -> Result<(), Failure> {
    ready(site).await?;
    site.kubectl(&format!("scale dlrp web --replicas={instances}"))
        .await?;
    site.until(RUNNING, SOON, |running| running == instances)
        .await?;
    site.until(PODS, SOON, |pods| {
        pods.matches('=').count().to_string() == instances
    })
    .await?;
    let pods = format!(
        "get pods -n {NAMESPACE} -l app.kubernetes.io/component=controller --field-selector=status.phase=Running -o name"
    );
    eventually("two controllers run", SOON, || async {
        let pods = site.kubectl(&pods).await.ok()?;
        (pods.lines().count() == 2).then_some(())
    })
    .await
}
