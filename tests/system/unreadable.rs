//! Records that the programs can't read, as a later version's that was taken back leaves them: they alone are left out.

use crate::support::{Failure, eventually, objects, site::START, site::Site};

const CRD: &str = "actuallrps.diego.cloudfoundry.org";

/// What kubectl says; an error when it fails.
async fn kubectl(site: &Site, args: &[&str]) -> Result<String, Failure> {
    let output = site.cluster.kubectl(args).await?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

async fn shown(site: &Site, lrp: &str, path: &str) -> Result<String, Failure> {
    let path = format!("jsonpath={{{path}}}");
    kubectl(site, &["get", "actuallrp", lrp, "-o", &path]).await
}

async fn runs_anew(site: &Site, lrp: &str, before: &str) -> Result<(), Failure> {
    let what = format!("{lrp} runs, and not as {before:?}");
    eventually(&what, START, || async {
        let state = shown(site, lrp, ".status.state").await.ok()?;
        let now = shown(site, lrp, ".status.instanceGuid").await.ok()?;
        (state == "Running" && now != before).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_not_be_read_stops_nothing_else() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let often = ["--convergence-interval-seconds", "1"];
    site.start_controller(&often).await?;
    site.start_rep("a", "z1", &[]).await?;
    for name in ["odd", "plain"] {
        site.desire(&objects::sleepers(name, 1)).await?;
        site.running(name, 1, |_| true).await?;
    }

    // As if the CRD of a later version had been there.
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
    let later = format!(
        r#"[{{"op": "remove", "path": "{status}/properties/state/enum"}}, {{"op": "remove", "path": "{status}/x-kubernetes-validations"}},
            {{"op": "add", "path": "{status}/x-kubernetes-preserve-unknown-fields", "value": true}}]"#
    );
    kubectl(&site, &["patch", "crd", CRD, "--type=json", "-p", &later]).await?;
    let written = async |lrp: &str, status: &str, path: &str, expected: &str| {
        let change = [
            "patch",
            "actuallrp",
            lrp,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        eventually("the API server takes it", START, || async {
            kubectl(&site, &[&change[..], &[status]].concat())
                .await
                .ok()?;
            (shown(&site, lrp, path).await.ok()? == expected).then_some(())
        })
        .await
    };
    let (odd, plain) = (
        r#"{"status": {"state": "Levitating"}}"#,
        r#"{"status": {"ofTomorrow": "kept"}}"#,
    );
    written("odd-0", odd, ".status.state", "Levitating").await?;
    written("plain-0", plain, ".status.ofTomorrow", "kept").await?;
    let guid = shown(&site, "odd-0", ".status.instanceGuid").await?;

    // Whoever begins now lists it.
    site.kill_controller().await;
    site.start_controller(&often).await?;
    site.desire(&objects::sleepers("new", 1)).await?;
    runs_anew(&site, "new-0", "").await?;
    let now = shown(&site, "odd-0", ".status.instanceGuid").await?;
    assert_eq!(now, guid, "nothing is done about it");
    let before = shown(&site, "plain-0", ".status.instanceGuid").await?;
    site.restart_rep("a").await?;
    runs_anew(&site, "plain-0", &before).await?;
    let kept = shown(&site, "plain-0", ".status.ofTomorrow").await?;
    assert_eq!(kept, "kept", "what others know is left to them");
    let state = shown(&site, "odd-0", ".status.state").await?;
    assert_eq!(state, "Levitating");

    // Its deletion is noticed although it can't be read.
    kubectl(&site, &["delete", "actuallrp", "odd-0"]).await?;
    runs_anew(&site, "odd-0", &guid).await
}
