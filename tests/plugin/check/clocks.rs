//! Clocks that are off: this machine's, a Node's and a controller's.

use std::process::Command;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{Found, finds};
use crate::support::{Failure, site::Site};
use crate::{Plugin, objects};

/// What the plugin is deceived with: the faults' library.
const CLOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");

/// A renewal by a holder whose clock is so far ahead.
async fn renew(site: &Site, space: &str, name: &str, ahead: i64) -> Result<(), Failure> {
    let time = Timestamp::now().checked_add(SignedDuration::from_secs(ahead))?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": 3600, "renewTime": format!("{time:.6}") },
    });
    let api = Api::<Lease>::namespaced(site.client.clone(), space);
    let apply = PatchParams::apply("holder").force();
    api.patch(name, &apply, &Patch::Apply(&lease)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_off_is_found() -> Result<(), Failure> {
    let site = Site::start().await?;
    let plugin = Plugin::of(&site);
    let nodes = "kube-node-lease";
    renew(&site, nodes, "node-1", 0).await?;
    let found = finds(
        &plugin,
        "",
        "clocks",
        "ok",
        &["1 clock of those who renew Leases"],
    )
    .await?;
    assert!(found.has("local-clock", "ok", &[]));

    // Some seconds are a warning, an hour is a failure; the worst is told first.
    renew(&site, nodes, "node-1", -30).await?;
    finds(
        &plugin,
        "",
        "clocks",
        "warning",
        &["clocks that are off: Node node-1 is", "s behind"],
    )
    .await?;
    renew(&site, nodes, "node-2", 3700).await?;
    let words = [
        "clocks that are off: Node node-2 is 61m ahead, Node node-1 is",
        "timedatectl set-ntp true",
    ];
    finds(&plugin, "", "clocks", "failure", &words).await?;
    renew(&site, "default", "diego-controller", -90).await?;
    let found = finds(
        &plugin,
        "",
        "clocks",
        "failure",
        &["controller diego-controller is"],
    )
    .await?;
    // Whether it leads is told by the API server's clock.
    assert!(found.has("leader", "ok", &[]));

    // This machine's own.
    let library = site.dir().join("clock.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut compile = Command::new(compiler);
    let compiled = compile
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(CLOCK)
        .status()?;
    assert!(compiled.success());
    let clock = site.dir().join("clock");
    let (base, rate, jump) = (0_i64, 1.0_f64, 630_000_000_000_i64);
    std::fs::write(
        &clock,
        [base.to_ne_bytes(), rate.to_ne_bytes(), jump.to_ne_bytes()].concat(),
    )?;
    let mut command = plugin.command("check -o json");
    let output = command
        .env("LD_PRELOAD", &library)
        .env("CLOCK_FILE", &clock)
        .output()
        .await?;
    let all = objects(&String::from_utf8(output.stdout)?)?;
    let found = Found { status: 0, all };
    let words = ["this machine's clock is 10m ahead", "timedatectl"];
    assert!(
        found.has("local-clock", "warning", &words),
        "{:?}",
        found.all
    );
    // Nothing else is taken for older than it is.
    assert!(found.has("leader", "ok", &[]));
    Ok(())
}
