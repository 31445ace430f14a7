//! Wrong flags and stores that are not there: the program ends before it starts work, and says why.

use std::process::Output;

use local_cluster::Options;

use crate::support::{Failure, site::START, site::Site};

async fn diego(args: &[&str], kubeconfig: Option<&std::path::Path>) -> Result<Output, Failure> {
    let mut command = tokio::process::Command::new(Site::program()?);
    command
        .args(args)
        .kill_on_drop(true)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent");
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    Ok(tokio::time::timeout(START, command.output()).await??)
}

/// The exit status is not 0, and stderr has all these words.
fn assert_ends_with(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "it did not end with an error: {said}"
    );
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

const ADDRESSES: [&str; 4] = [
    "--metrics-addr",
    "127.0.0.1:0",
    "--health-addr",
    "127.0.0.1:0",
];

fn with<'a>(program: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[program][..], &ADDRESSES, more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_name_flag_value_and_remedy() -> Result<(), Failure> {
    let output = diego(&["rep", "--cell-id", "Cell_1"], None).await?;
    assert_ends_with(&output, &["--cell-id", "Cell_1", "lower-case"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "the usual status of a usage error"
    );
    let output = diego(&["controller", "--write-concurrency", "0"], None).await?;
    assert_ends_with(&output, &["--write-concurrency", "0", "1..=1024"]);
    let output = diego(&["controller", "--etcd-endpoints", "etcd.example"], None).await?;
    assert_ends_with(&output, &["--etcd-endpoints", "etcd.example", "http"]);
    let output = diego(
        &["controller", "--callback-allowed-hosts", "http://x"],
        None,
    )
    .await?;
    assert_ends_with(&output, &["--callback-allowed-hosts", "http://x", "CIDR"]);
    let output = diego(&["controller", "--kick-task-seconds", "5"], None).await?;
    let words = [
        "--kick-task-seconds 5",
        "--callback-timeout-seconds",
        "at least",
    ];
    assert_ends_with(&output, &words);
    let deadline = ["controller", "--leader-elect-renew-deadline-seconds", "5"];
    let output = diego(&deadline, None).await?;
    let words = ["--leader-elect-renew-deadline-seconds 5", "at most 1.6"];
    assert_ends_with(&output, &words);
    let output = diego(&["controller", "--etcd-cert", "a.pem"], None).await?;
    assert_ends_with(&output, &["--etcd-key"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_not_there_are_told_at_the_start() -> Result<(), Failure> {
    let site = Site::start_with(Options {
        garbage_collection: false,
        ..Options::default()
    })
    .await?;
    let kubeconfig = site.cluster.kubeconfig();

    let output = diego(
        &with("controller", &["--kubeconfig", "/nonexistent/config"]),
        None,
    )
    .await?;
    assert_ends_with(&output, &["--kubeconfig", "/nonexistent/config"]);

    let dead = format!("http://127.0.0.1:{}", local_cluster::free_port()?);
    let output = diego(
        &with("controller", &["--etcd-endpoints", &dead]),
        Some(kubeconfig),
    )
    .await?;
    assert_ends_with(&output, &["--etcd-endpoints", &dead]);

    let dir = site.dir().join("rep");
    let dir = dir.display().to_string();
    let args = [
        "--cell-id",
        "a",
        "--work-dir",
        &dir,
        "--etcd-endpoints",
        &dead,
    ];
    let output = diego(&with("rep", &args), Some(kubeconfig)).await?;
    assert_ends_with(&output, &["--etcd-endpoints", &dead]);

    let alive = site.etcd.endpoints().join(",");
    let args = [
        "--cell-id",
        "a",
        "--work-dir",
        &dir,
        "--etcd-endpoints",
        &alive,
        "--presence-ttl-seconds",
        "1",
    ];
    let output = diego(&with("rep", &args), Some(kubeconfig)).await?;
    assert_ends_with(
        &output,
        &[
            "--presence-ttl-seconds 1",
            "at least 2 s",
            "set --presence-ttl-seconds to 2 or more",
        ],
    );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let taken = listener.local_addr()?.to_string();
    let args = [
        "controller",
        "--health-addr",
        "127.0.0.1:0",
        "--metrics-addr",
        &taken,
    ];
    let output = diego(&args, Some(kubeconfig)).await?;
    assert_ends_with(&output, &["--metrics-addr", &taken]);

    let stopped = site.cluster.kubeconfig().to_owned();
    site.cluster.stop_apiserver().await;
    let output = diego(
        &with("controller", &["--etcd-endpoints", &alive]),
        Some(&stopped),
    )
    .await?;
    assert_ends_with(&output, &["API server", "does not answer"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_crds_the_remedy_is_told() -> Result<(), Failure> {
    let site = Site::start_with(Options {
        garbage_collection: false,
        ..Options::default()
    })
    .await?;
    let output = site
        .cluster
        .kubectl(&["delete", "crd", "tasks.diego.cloudfoundry.org"])
        .await?;
    assert!(output.status.success());
    let endpoints = site.etcd.endpoints().join(",");
    let output = diego(
        &with("controller", &["--etcd-endpoints", &endpoints]),
        Some(site.cluster.kubeconfig()),
    )
    .await?;
    assert_ends_with(
        &output,
        &["tasks.diego.cloudfoundry.org", "diego crds | kubectl apply"],
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn help_gives_unit_default_and_variable_of_every_flag() -> Result<(), Failure> {
    for (program, words) in [
        (
            "controller",
            [
                "--convergence-interval-seconds",
                "[default: 30]",
                "DIEGO_CONVERGENCE_INTERVAL_SECONDS",
            ],
        ),
        (
            "rep",
            [
                "--presence-ttl-seconds",
                "[default: 5]",
                "DIEGO_PRESENCE_TTL_SECONDS",
            ],
        ),
    ] {
        let output = diego(&[program, "--help"], None).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        for word in words {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
    }
    Ok(())
}
