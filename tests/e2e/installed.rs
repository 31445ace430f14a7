//! A cluster with real nodes on which the real chart is installed with the real image.

use crate::{site::Site, support::Failure};
use local_cluster::NodesOptions;
use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

/// The release's name.
pub const RELEASE: &str = "diego-operator";
/// The release's namespace.
pub const NAMESPACE: &str = "diego-system";

/// How long anything may take that has no deadline of its own.
pub const SOON: Duration = Duration::from_secs(90);

/// A [`Site`] with the chart installed, two controllers, and all nodes Cells that are Ready.
pub struct Installed {
    /// The nodes and the ways to ask them.
    pub site: Site,
}

impl Installed {
    /// So many nodes, `node-1` and on, and the chart with these further arguments of `helm install`.
    pub async fn start(nodes: usize, helm: &[&str]) -> Result<Self, Failure> {
        Self::on(NodesOptions::count(nodes), helm).await
    }

    /// These nodes, and the chart with these further arguments of `helm install`.
    pub async fn on(options: NodesOptions, helm: &[&str]) -> Result<Self, Failure> {
        let nodes = options.nodes.len();
        let site = Site::start(options).await?;
        import_image(&site).await?;
        let installed = Self { site };
        let args = [
            &["install", "--create-namespace", "--wait", "--timeout=3m"],
            helm,
        ];
        installed.helm_release(&args.concat()).await?;
        installed.cells_ready(nodes).await?;
        Ok(installed)
    }

    /// `helm VERB RELEASE CHART` with the test's image, in the release's namespace: `["install"]`, `["upgrade", "--set=a=b"]`.
    pub async fn helm_release(&self, verb_and_args: &[&str]) -> Result<String, Failure> {
        let (verb, args) = verb_and_args.split_first().ok_or("no verb")?;
        let chart = file("charts/diego-operator");
        let values = file("tests/e2e/boot-id-values.yaml");
        let line = format!(
            "{verb} {RELEASE} {} --namespace {NAMESPACE} --values {} --set image.tag=dev {}",
            chart.display(),
            values.display(),
            args.join(" ")
        );
        self.site.helm(&line).await
    }

    /// Waits until so many Cells are Ready, and no other is there.
    pub async fn cells_ready(&self, count: usize) -> Result<(), Failure> {
        const ASK: &str =
            r#"get cells -o jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        let all = vec!["True"; count].join(" ");
        self.until(ASK, SOON, |ready| ready == all).await.map(drop)
    }

    /// The Pod of the controller that leads, and its node.
    pub async fn leader(&self) -> Result<(String, String), Failure> {
        let ask = format!(
            "get lease diego-controller -n {NAMESPACE} -o jsonpath={{.spec.holderIdentity}}"
        );
        let holder = self
            .until(&ask, SOON, |holder| holder.contains('_'))
            .await?;
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        let ask = format!("get pod {pod} -n {NAMESPACE} -o jsonpath={{.spec.nodeName}}");
        let node = self.kubectl(&ask).await?;
        Ok((pod, node))
    }
}

impl Deref for Installed {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for Installed {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

/// Gives all nodes the product's image, `diego-operator:dev`.
pub async fn import_image(site: &Site) -> Result<(), Failure> {
    let archive = file("target/image/diego-operator.oci.tar");
    if !archive.exists() {
        let archive = archive.display();
        return Err(format!("there is no {archive}: `BUILDER=buildah hack/image.sh` makes it, and so does `make e2e`").into());
    }
    Ok(site.nodes.import(&archive).await?)
}

/// A file of the checkout.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
