//! DNS for Pods: CoreDNS beside the control plane, which knows Services and the Pods behind headless ones.

use crate::{LocalCluster, Result, ServerProcess, binary, pki};
use std::{net::Ipv4Addr, time::Duration};
use tokio::net::TcpStream;

/// What ends every name of the cluster.
pub(super) const DOMAIN: &str = "cluster.local";
/// Nothing else can be told to Pods.
const PORT: u16 = 53;
/// CoreDNS waits for what the API server knows, then answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Starts it at the control plane's address, where no dying node takes it along.
pub(super) async fn start(cluster: &LocalCluster) -> Result<ServerProcess> {
    let address = cluster.address();
    let corefile = pki::write(
        cluster.dir(),
        "Corefile",
        &corefile(address, &cluster.kubeconfig().display().to_string()),
    )?;
    let args = ["-conf".to_owned(), corefile.display().to_string()];
    let log = cluster.dir().join("coredns.log");
    let dns = ServerProcess::start("coredns", &binary("coredns")?, &args, &[], &log)?;
    dns.ready(READY_WITHIN, || async {
        TcpStream::connect((address, PORT)).await.is_ok()
    })
    .await?;
    Ok(dns)
}

fn corefile(address: Ipv4Addr, kubeconfig: &str) -> String {
    format!(
        "\
.:{PORT} {{
    bind {address}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods disabled
    }}
}}
"
    )
}
