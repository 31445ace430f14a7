//! The one HTTP request that waiting for a server needs: a GET of which only the status counts.

use crate::{Error, Result};
use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

/// A server that accepts connections and then says nothing counts as not ready after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether `http://127.0.0.1:port` answers a GET of `path` with 200.
pub(crate) async fn is_ok(port: u16, path: &str) -> bool {
    let request = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        get(stream, path, "").await
    };
    matches!(time::timeout(PATIENCE, request).await, Ok(Ok(200)))
}

/// Asks servers whose certificates one authority signed, as the owner of one token.
#[derive(Clone)]
pub(crate) struct TlsClient {
    connector: TlsConnector,
    address: Ipv4Addr,
    headers: String,
}

impl TlsClient {
    /// A client of the servers at `address` that trusts the authority `ca` alone and shows `token`.
    pub(crate) fn new(ca: CertificateDer<'static>, token: &str, address: Ipv4Addr) -> Result<Self> {
        let bad = |error: tokio_rustls::rustls::Error| Error::Certificate(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(bad)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            headers: format!("Authorization: Bearer {token}\r\n"),
        })
    }

    /// Whether `https://address:port` answers a GET of `path` with 200.
    pub(crate) async fn is_ok(&self, port: u16, path: &str) -> bool {
        let request = async {
            let stream = TcpStream::connect((self.address, port)).await?;
            let name = ServerName::from(std::net::IpAddr::from(self.address));
            let stream = self.connector.connect(name, stream);
            get(stream.await?, path, &self.headers).await
        };
        matches!(time::timeout(PATIENCE, request).await, Ok(Ok(200)))
    }
}

/// Sends the request and reads the status.
async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &str,
) -> io::Result<u16> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    // "HTTP/1.1 200 ..."
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head[9..])
        .ok()
        .and_then(|code| code.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
