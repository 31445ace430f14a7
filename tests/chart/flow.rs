//! Which flow and which priority level the API server gives to whose requests.

use local_cluster::LocalCluster;

use crate::api_server::kubectl;
use crate::flags::NODE;
use crate::helm::{Failure, NAMESPACE, said};

/// Which FlowSchema and which level the API server gives a request with this token.
async fn flow(cluster: &LocalCluster, token: &str, args: &[&str]) -> Result<[String; 2], Failure> {
    let token = format!("--token={token}");
    let mut all = vec![token.as_str(), "-v=8"];
    all.extend(args);
    let said = said(&cluster.kubectl(&all).await?).to_lowercase();
    let uid = |header: &str| -> Result<String, Failure> {
        let (_, rest) = said
            .split_once(header)
            .ok_or_else(|| format!("no {header}: {said}"))?;
        let digit = |c: char| c.is_ascii_hexdigit() || c == '-';
        let uid = rest.trim_start_matches(|c| !digit(c));
        Ok(uid.chars().take_while(|c| digit(*c)).collect())
    };
    Ok([
        uid("x-kubernetes-pf-flowschema-uid")?,
        uid("x-kubernetes-pf-prioritylevel-uid")?,
    ])
}

/// A controller's canary waits where the reps' renewals wait, or it says nothing about them; and nothing else waits there.
pub async fn canaries_share_the_flow_of_renewals(
    cluster: &LocalCluster,
    controller: &str,
    rep: &str,
) -> Result<(), Failure> {
    let lease = format!("cell-{NODE}");
    let lease = ["get", "lease", &lease, "-n", NAMESPACE];
    let renewal = flow(cluster, rep, &lease).await?;
    assert_eq!(flow(cluster, controller, &lease).await?, renewal);
    for (who, what) in [(rep, "cell"), (rep, "node"), (controller, "cell")] {
        let other = flow(cluster, who, &["get", what, NODE]).await?;
        assert_ne!(other[1], renewal[1], "{what}");
    }
    let names = ["get", "flowschema", "-o"];
    let path = format!(
        r#"jsonpath={{.items[?(@.metadata.uid=="{}")].metadata.name}} {{.items[?(@.metadata.uid=="{}")].spec.distinguisherMethod}}"#,
        renewal[0], renewal[0]
    );
    let schema = kubectl(cluster, &[&names[..], &[&path]].concat()).await?;
    assert_eq!(schema.trim(), "diego-operator-presence");
    Ok(())
}
