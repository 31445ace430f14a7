//! A network between some programs and the presence store, wherever that is.

use crate::network::Network;
use crate::row::Store;
use crate::stage::Stage;
use crate::support::Failure;

/// Programs that are started with these reach the presence store by way of the network.
pub struct Reach {
    /// What lies between.
    pub network: Network,
    endpoint: String,
    kubeconfig: Option<String>,
}

impl Reach {
    /// Where etcd is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// With these flags.
    pub fn flags(&self) -> Vec<&str> {
        let file = self.kubeconfig.iter();
        file.flat_map(|file| ["--kubeconfig", file]).collect()
    }
}

impl Stage {
    /// A network before the presence store. Where Leases are the store, it is the way to all of the API server.
    pub async fn before_store(&self) -> Result<Reach, Failure> {
        let etcd = self.site.etcd.endpoints().remove(0);
        Ok(match self.store {
            Store::Etcd => {
                let network = Network::to(&etcd).await?;
                Reach {
                    endpoint: network.url("http"),
                    network,
                    kubeconfig: None,
                }
            }
            Store::Leases => {
                let server = self.site.cluster.server_url();
                let network = Network::to(&server).await?;
                let file = format!("{}.yaml", self.cell("store"));
                let file = self.site.dir().join(file);
                let file = network.kubeconfig(self.site.cluster.kubeconfig(), &server, file)?;
                Reach {
                    endpoint: etcd,
                    network,
                    kubeconfig: Some(file.display().to_string()),
                }
            }
        })
    }
}
