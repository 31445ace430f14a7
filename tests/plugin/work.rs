//! `retire` where a second instance must not run.

use diego_operator::api::ActualLRP;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::Plugin;
use crate::support::{Failure, objects as make, site::Site};

/// A slot whose Cell is missing, as the controller leaves it. There is no controller that goes on with it.
async fn slot(site: &Site, process: &str, policy: &str) -> Result<(), Failure> {
    let mut desired = make::sleepers(process, 1);
    desired.spec.missing_cell_policy = serde_json::from_value(json!(policy))?;
    site.desire(&desired).await?;
    orphan(site, process).await
}

/// The same without its DesiredLRP.
async fn orphan(site: &Site, process: &str) -> Result<(), Failure> {
    let name = format!("{process}-0");
    let lrp: ActualLRP = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1",
        "kind": "ActualLRP",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "desiredLRPName": process, "index": 0 },
    }))?;
    site.actual().create(&PostParams::default(), &lrp).await?;
    let suspect =
        json!({ "cellName": "cell-2", "cellEpoch": 7, "instanceGuid": "one", "state": "Running" });
    let status = json!({ "status": { "state": "Unclaimed", "suspect": suspect } });
    site.actual()
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_holds_a_second_instance_back_is_kept() -> Result<(), Failure> {
    let site = Site::start().await?;
    let plugin = Plugin::of(&site);
    slot(&site, "one", "Strict").await?;
    slot(&site, "many", "Suspect").await?;
    orphan(&site, "unknown").await?;
    let left = async || -> Result<Vec<String>, Failure> {
        let all = site.actual().list(&Default::default()).await?;
        Ok(all.iter().map(ResourceExt::name_any).collect())
    };

    for (line, words) in [
        ("retire many-0 one-0", "its missingCellPolicy is Strict"),
        ("retire unknown-0", "could not be read"),
    ] {
        let said = plugin.fails(line, 1).await?;
        for words in [words, "missing Cell cell-2", "docs/operating.md", "--force"] {
            assert!(said.contains(words), "{line}: {words}: {said}");
        }
    }
    assert_eq!(left().await?, ["many-0", "one-0", "unknown-0"]);

    plugin.ok("retire many-0 many-0").await?;
    assert_eq!(left().await?, ["one-0", "unknown-0"]);
    plugin.ok("retire one-0 unknown-0 --force").await?;
    assert_eq!(left().await?, Vec::<String>::new());
    Ok(())
}
