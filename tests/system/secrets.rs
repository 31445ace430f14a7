//! No secret is in any log, however much is logged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diego_operator::api::conditions;
use local_cluster::ServerProcess;

use crate::support::certs::self_signed;
use crate::support::{Failure, eventually, objects, site::START, site::Site};

/// The secrets of a PEM file: its lines but for the first and the last.
fn lines_of(key: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(key)?;
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    Ok(lines.map(str::to_owned).collect())
}

fn start(site: &Site, name: &str, args: &[String]) -> Result<ServerProcess, Failure> {
    let kubeconfig = site.cluster.kubeconfig().display().to_string();
    let envs = [("KUBECONFIG", &*kubeconfig), ("RUST_LOG", "trace")];
    let envs = envs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let log = site.dir().join(format!("{name}.log"));
    Ok(ServerProcess::start(
        name,
        &Site::program()?,
        args,
        &envs,
        &log,
    )?)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged() -> Result<(), Failure> {
    let site = Site::start().await?;
    let (cert, key) = self_signed(site.dir(), "tls")?;
    let kubeconfig = std::fs::read_to_string(site.cluster.kubeconfig())?;
    let token = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "));
    let token = token.ok_or("a token")?.to_owned();
    let password = "correct-horse-battery";
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let port = local_cluster::free_port()?;
    let args = |program: &[&str], metrics: u16, endpoints: &str| -> Vec<String> {
        let metrics = format!("--metrics-addr=127.0.0.1:{metrics}");
        let endpoints = format!("--etcd-endpoints={endpoints}");
        let common = [&*metrics, "--health-addr=127.0.0.1:0", &endpoints];
        let all = program.iter().chain(&common);
        all.map(|arg| (*arg).to_owned()).collect()
    };
    let endpoints = site.etcd.endpoints().join(",");

    // Whoever reads metrics sends a token.
    let mut controller = args(
        &[
            "controller",
            "--callback-allowed-hosts=127.0.0.1",
            "--callback-timeout-seconds=1",
        ],
        port,
        &endpoints,
    );
    controller.extend([
        format!("--metrics-tls-cert={cert_text}"),
        format!("--metrics-tls-key={key_text}"),
        "--metrics-auth=token".to_owned(),
    ]);
    let controller = start(&site, "trace-controller", &controller)?;
    let work_dir = format!("--work-dir={}", site.dir().join("a").display());
    let rep = args(
        &["rep", "--cell-id=a", "--memory=1Gi", &work_dir],
        0,
        &endpoints,
    );
    let rep = start(&site, "trace-rep", &rep)?;
    // This one has the key of a client certificate, and can't use it.
    let secure = endpoints.replace("http://", "https://");
    let work_dir = format!("--work-dir={}", site.dir().join("b").display());
    let mut other = args(
        &[
            "rep",
            "--cell-id=b",
            "--memory=1Gi",
            "--start-timeout-seconds=2",
            &work_dir,
        ],
        0,
        &secure,
    );
    other.extend([
        format!("--etcd-ca={cert_text}"),
        format!("--etcd-cert={cert_text}"),
        format!("--etcd-key={key_text}"),
    ]);
    let other = start(&site, "trace-other", &other)?;

    // Nobody listens there, so that there is something to complain of.
    let closed = local_cluster::free_port()?;
    let mut told = objects::task("told", "exit 0");
    told.spec.completion_callback_url =
        Some(format!("http://robot:{password}@127.0.0.1:{closed}/done"));
    let mut odd = objects::task("odd", "exit 0");
    odd.spec.completion_callback_url = Some(format!("http://robot:{password}@[odd]:x/"));
    for task in [&told, &odd] {
        site.run_task(task).await?;
    }
    eventually("the callback is tried", START, || async {
        let events: kube::Api<k8s_openapi::api::events::v1::Event> =
            kube::Api::namespaced(site.client.clone(), "default");
        let events = events.list(&Default::default()).await.ok()?;
        let mut reasons = events.items.iter().filter_map(|event| event.reason.clone());
        reasons
            .any(|reason| reason == "TaskCallbackUnanswered")
            .then_some(())
    })
    .await?;
    eventually("the odd one is settled", START, || async {
        let status = site.tasks().get_opt("odd").await.ok()??.status?;
        let delivered = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == conditions::CALLBACK_DELIVERED);
        delivered.then_some(())
    })
    .await?;
    let curl = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--cacert", &cert_text])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .arg(format!("https://127.0.0.1:{port}/metrics"))
        .output()?;
    let page = String::from_utf8_lossy(&curl.stdout).into_owned();
    assert!(page.contains("diego_"), "{page}");
    tokio::time::timeout(START, other.wait()).await?;
    for process in [&controller, &rep] {
        process.terminate();
    }
    for process in [&controller, &rep] {
        tokio::time::timeout(Duration::from_secs(90), process.wait()).await?;
    }

    let mut secrets: BTreeSet<String> = lines_of(&key)?.into_iter().collect();
    secrets.extend([token.clone(), STANDARD.encode(&token)]);
    secrets.extend([
        password.to_owned(),
        STANDARD.encode(format!("robot:{password}")),
    ]);
    assert!(secrets.len() >= 6, "there are secrets to look for");
    for process in [&controller, &rep, &other] {
        let log = std::fs::read_to_string(process.log())?;
        assert!(log.len() > 1000, "it has logged: {log}");
        for secret in &secrets {
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{} has {secret}", process.log().display());
        }
    }
    let traced = std::fs::read_to_string(controller.log())?;
    assert!(traced.contains("TRACE"), "everything is logged");
    assert!(!page.contains(password) && !page.contains(&token));
    Ok(())
}
