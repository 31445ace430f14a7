//! Clusters that are too old or too new: the programs say so at their start.

use std::process::Output;

use diego_operator::api::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_cluster::{Options, User};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Failure, eventually, site::START, site::Site};

const CELLS: &str = "cells.diego.cloudfoundry.org";

/// Runs a program until it ends by itself.
async fn start(
    program: &str,
    kubeconfig: &std::path::Path,
    more: &[&str],
) -> Result<Output, Failure> {
    let mut command = tokio::process::Command::new(Site::program()?);
    command
        .args([
            program,
            "--metrics-addr",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
        ])
        .args(more)
        .env("KUBECONFIG", kubeconfig)
        .env("NO_COLOR", "1")
        .kill_on_drop(true);
    Ok(tokio::time::timeout(START, command.output()).await??)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It ended with an error, before it did anything, and said all this.
fn assert_refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert!(!output.status.success(), "it started: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

/// Puts a changed CRD of Cells in place.
async fn change_crd(site: &Site, change: impl FnOnce(&mut Value)) -> Result<(), Failure> {
    let api = Api::<CustomResourceDefinition>::all(site.client.clone());
    let ours = crds::all();
    let ours = ours.iter().find(|file| file.name.contains("_cells."));
    let mut crd = serde_json::to_value(&ours.ok_or("there is no such CRD")?.crd)?;
    change(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]);
    let params = PatchParams::apply("tests").force();
    api.patch(CELLS, &params, &Patch::Apply(&crd)).await?;
    Ok(())
}

/// A store that is not there: a program that gets this far has found nothing wrong with the API server.
const NO_STORE: [&str; 2] = ["--etcd-endpoints", "http://127.0.0.1:1"];

#[tokio::test(flavor = "multi_thread")]
async fn crds_of_another_version_are_told_apart() -> Result<(), Failure> {
    let mut options = Options::default();
    options.users.push(User {
        name: "nobody".into(),
        groups: Vec::new(),
    });
    let site = Site::start_with(options).await?;
    let kubeconfig = site.cluster.kubeconfig().to_owned();
    let controller = async |more: &[&str]| start("controller", &kubeconfig, more).await;

    // Older: a field and a value that this program writes are not there.
    change_crd(&site, |properties| {
        let status = properties["status"]["properties"].as_object_mut();
        status.expect("a status").remove("lastRecovery");
        properties["status"]["properties"]["state"]["enum"] = json!(["Present", "Missing"]);
    })
    .await?;
    let output = controller(&NO_STORE).await?;
    assert_refused(
        &output,
        &[
            CELLS,
            "is older than this program",
            "status.lastRecovery",
            "status.state=Evacuated",
            "diego crds | kubectl apply --server-side --force-conflicts -f -",
        ],
    );
    let told = said(&output);
    assert!(!told.contains("127.0.0.1:1"), "it went on: {told}");

    // Newer: what this program does not know does no harm.
    change_crd(&site, |properties| {
        let status = &mut properties["status"]["properties"];
        status["mood"] = json!({ "type": "string", "description": "New." });
    })
    .await?;
    let output = controller(&NO_STORE).await?;
    assert_refused(
        &output,
        &["is newer than this program", "status.mood", "127.0.0.1:1"],
    );

    // The same: nothing is said.
    change_crd(&site, |_| {}).await?;
    let output = controller(&NO_STORE).await?;
    assert_refused(&output, &["127.0.0.1:1"]);
    let told = said(&output);
    assert!(!told.contains("than this program"), "{told}");

    // Who may not read them is told what to allow.
    let nobody = site.cluster.kubeconfig_for("nobody")?;
    let output = start("controller", &nobody, &NO_STORE).await?;
    assert_refused(
        &output,
        &[
            "the CRDs can't be read",
            "get customresourcedefinitions.apiextensions.k8s.io",
            "127.0.0.1:1",
        ],
    );

    // One is not there at all.
    let api = Api::<CustomResourceDefinition>::all(site.client.clone());
    api.delete(CELLS, &DeleteParams::default()).await?;
    let gone = || async { api.get_opt(CELLS).await.ok()?.is_none().then_some(()) };
    eventually("the CRD is gone", START, gone).await?;
    let output = controller(&NO_STORE).await?;
    assert_refused(&output, &[CELLS, "install the CRDs first"]);
    Ok(())
}

/// Answers every request as an API server of this version would its `/version`.
async fn old_server(version: Value) -> Result<tempfile::NamedTempFile, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            let mut buffer = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let (status, body) = match head.starts_with(b"GET /version ") {
                true => ("200 OK", version.to_string()),
                false => {
                    let body = json!({
                        "kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "NotFound", "message": "not found", "code": 404,
                    });
                    ("404 Not Found", body.to_string())
                }
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "old",
        "clusters": [{ "name": "old", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "old", "user": {} }],
        "contexts": [{ "name": "old", "context": { "cluster": "old", "user": "old" } }],
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), kubeconfig.to_string())?;
    Ok(file)
}

/// What `/version` answers.
fn version(text: &str) -> Value {
    json!({
        "major": "1", "minor": "31", "gitVersion": text, "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
    })
}

/// An API server this old can't be had beside the current one: one that says so stands in for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_too_old_is_refused_by_both_programs() -> Result<(), Failure> {
    let old = old_server(version("v1.31.9-vendor.7")).await?;
    let work_dir = tempfile::tempdir()?;
    let work_dir = work_dir.path().display().to_string();
    let rep = ["--cell-id", "a", "--zone", "z1", "--work-dir", &work_dir];
    for (program, more) in [("controller", &[][..]), ("rep", &rep[..])] {
        let output = start(program, old.path(), more).await?;
        let words = [
            "Kubernetes v1.31.9-vendor.7",
            "1.32 is the oldest",
            "upgrade it",
        ];
        assert_refused(&output, &words);
    }
    // New enough, and of unknown age: the next thing that is wrong is told.
    let new = old_server(version("v1.32.1-eks-123")).await?;
    let output = start("controller", new.path(), &[]).await?;
    assert_refused(&output, &["install the CRDs first"]);
    assert!(!said(&output).contains("oldest"), "{}", said(&output));
    let unknown = old_server(version("master")).await?;
    let output = start("controller", unknown.path(), &[]).await?;
    assert_refused(
        &output,
        &[
            "version can't be understood",
            "master",
            "install the CRDs first",
        ],
    );
    Ok(())
}
