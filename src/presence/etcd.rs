//! How the presence store etcd is reached: its options, its key layout, and one connection to one endpoint.

mod credentials;
mod roll;
mod store;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KeyValue};

use super::{Presence, PresenceValue, StoreError};
use crate::backoff;

pub(crate) use credentials::Credentials;
pub use store::{ConnectError, EtcdStore};

/// Every presence key starts with this; the Cell's name follows. The version is that of the value's format.
pub const PREFIX: &str = "/diego.cloudfoundry.org/v1/presence/";

/// One endpoint is given this long to take a TCP connection: a host that is down must not use up the time of a
/// renewal, which has to reach another endpoint within the TTL.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// A list of 5,000 Cells is about 2 MB; gRPC's own limit of 4 MB would refuse the next size up for good.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

/// How the store is reached; the flags `--etcd-endpoints`, `--etcd-ca`, `--etcd-cert` and `--etcd-key`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs of the members, `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signed the members' certificates.
    pub ca: Option<PathBuf>,
    /// PEM file of this client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of this client's key.
    pub key: Option<PathBuf>,
}

/// Options that can't work, told before anything is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no endpoint at all.
    #[error(
        "no etcd endpoint is given: set --etcd-endpoints, for example --etcd-endpoints https://etcd-0:2379"
    )]
    NoEndpoint,
    /// An endpoint is not a URL of a kind that can be used.
    #[error("--etcd-endpoints: \"{0}\" is not a URL that starts with http:// or https://")]
    Endpoint(String),
    /// Certificates are given, but an endpoint is not reached by TLS.
    #[error(
        "--etcd-endpoints: \"{0}\" is not reached by TLS, but --etcd-ca is set: \
         write https://, or leave the certificates out"
    )]
    PlainWithTls(String),
    /// An endpoint is reached by TLS, but nothing says whom to trust.
    #[error(
        "--etcd-endpoints: \"{0}\" is reached by TLS: set --etcd-ca to the PEM file \
         of the authority that signed the members' certificates"
    )]
    TlsWithoutCa(String),
    /// Only one half of the client's certificate and key is given, or both without `--etcd-ca`.
    #[error(
        "--etcd-cert and --etcd-key belong together, and with --etcd-ca: set all three, or only --etcd-ca"
    )]
    HalfPair,
}

impl EtcdConfig {
    /// Says what is wrong with these options, without talking to anybody.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        let pair = (self.cert.is_some(), self.key.is_some());
        if pair.0 != pair.1 || (pair.0 && self.ca.is_none()) {
            return Err(ConfigError::HalfPair);
        }
        for endpoint in &self.endpoints {
            let secure = endpoint.starts_with("https://");
            if !secure && !endpoint.starts_with("http://") || endpoint.ends_with("://") {
                return Err(ConfigError::Endpoint(endpoint.clone()));
            }
            match (secure, self.ca.is_some()) {
                (false, true) => return Err(ConfigError::PlainWithTls(endpoint.clone())),
                (true, false) => return Err(ConfigError::TlsWithoutCa(endpoint.clone())),
                _ => {}
            }
        }
        Ok(())
    }

    /// A random place to start in the endpoints, so that many reps spread over the members.
    pub(crate) fn first_turn(&self) -> usize {
        (backoff::chance() * self.endpoints.len() as f64) as usize
    }

    /// The endpoint whose turn it is.
    pub(crate) fn endpoint(&self, turn: usize) -> &str {
        &self.endpoints[turn % self.endpoints.len()]
    }

    /// A new connection to the one endpoint whose turn it is. It is made when first used.
    ///
    /// One endpoint at a time, because the client's own round robin does not look whether a member is alive.
    /// No HTTP/2 pings: etcd cuts off a client that pings more often than every 5 s, and takes its streams with it;
    /// every use has a deadline of its own instead. The certificate files are read each time: they may be renewed.
    pub(crate) async fn connect(&self, turn: usize) -> Result<Client, StoreError> {
        let credentials = Credentials::read(self).await?;
        self.connect_with(turn, &credentials).await
    }

    /// The same with files that were read already.
    pub(crate) async fn connect_with(
        &self,
        turn: usize,
        credentials: &Credentials,
    ) -> Result<Client, StoreError> {
        // With a leader required, a member that lost its cluster ends its streams instead of staying silent.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_require_leader(true);
        if let Some(tls) = credentials.tls() {
            options = options.with_tls(tls);
        }
        Ok(Client::connect([self.endpoint(turn)], Some(options)).await?)
    }
}

/// Bounds one exchange with the store.
pub(crate) async fn within<T, E>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError>
where
    StoreError: From<E>,
{
    match tokio::time::timeout(limit, exchange).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Timeout(limit)),
    }
}

/// gRPC's code for "permission denied".
const PERMISSION_DENIED: i32 = 7;

/// Whether the store knows us, and says that we may not.
pub(super) fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() as i32 == PERMISSION_DENIED)
}

/// What to do about it, where that is known.
pub(super) fn remedy(error: &etcd_client::Error) -> &'static str {
    if is_denied(error) {
        "; give the user in the certificate of --etcd-cert its role (docs/security.md#roles-in-etcd)"
    } else {
        ""
    }
}

/// The key that holds the presence of a Cell.
pub fn key(cell: &str) -> String {
    format!("{PREFIX}{cell}")
}

/// The Cell whose presence a key holds; `None` for a key outside the layout.
pub fn cell_of(key: &[u8]) -> Option<&str> {
    let cell = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    (!cell.is_empty()).then_some(cell)
}

/// The presence that a key of the store holds; `None` for a key outside the layout.
pub(crate) fn decode(kv: &KeyValue) -> Option<Presence> {
    let cell = cell_of(kv.key())?.to_owned();
    let value = decode_value(kv.value());
    Some(Presence::created_at(cell, kv.create_revision(), value))
}

/// A presence's value; `None` when it can't be read, or believed.
pub fn decode_value(value: &[u8]) -> Option<PresenceValue> {
    let value: Option<PresenceValue> = serde_json::from_slice(value).ok();
    value.filter(PresenceValue::is_credible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoints: &[&str], tls: [Option<&str>; 3]) -> EtcdConfig {
        let [ca, cert, key] = tls.map(|path| path.map(PathBuf::from));
        EtcdConfig {
            endpoints: endpoints.iter().map(|e| e.to_string()).collect(),
            ca,
            cert,
            key,
        }
    }

    #[test]
    fn options_that_can_not_work_are_told_with_the_flag() {
        let none = [None, None, None];
        let (ca, cert, key) = (Some("ca.pem"), Some("tls.crt"), Some("tls.key"));
        let table = [
            (config(&["http://a:1", "http://b:1"], none), Ok(())),
            (config(&["https://a:1"], [ca, None, None]), Ok(())),
            (config(&["https://a:1"], [ca, cert, key]), Ok(())),
            (config(&[], none), Err(ConfigError::NoEndpoint)),
            (
                config(&["a:1"], none),
                Err(ConfigError::Endpoint("a:1".into())),
            ),
            (
                config(&["http://"], none),
                Err(ConfigError::Endpoint("http://".into())),
            ),
            (
                config(&["http://a:1"], [ca, None, None]),
                Err(ConfigError::PlainWithTls("http://a:1".into())),
            ),
            (
                config(&["https://a:1"], none),
                Err(ConfigError::TlsWithoutCa("https://a:1".into())),
            ),
            (
                config(&["https://a:1"], [ca, cert, None]),
                Err(ConfigError::HalfPair),
            ),
            (
                config(&["https://a:1"], [ca, None, key]),
                Err(ConfigError::HalfPair),
            ),
            (
                config(&["https://a:1"], [None, cert, key]),
                Err(ConfigError::HalfPair),
            ),
        ];
        for (config, expected) in table {
            let answer = config.validate();
            if let Err(error) = &answer {
                assert!(error.to_string().contains("--etcd-"), "{error}");
            }
            assert_eq!(answer, expected, "{config:?}");
        }
    }

    #[test]
    fn a_key_names_its_cell_and_nothing_else_does() {
        assert_eq!(key("cell-1"), "/diego.cloudfoundry.org/v1/presence/cell-1");
        assert_eq!(cell_of(key("cell-1").as_bytes()), Some("cell-1"));
        for other in [
            &b"/diego.cloudfoundry.org/v1/presence/"[..],
            b"/other/cell-1",
            b"\xff",
        ] {
            assert_eq!(cell_of(other), None);
        }
    }

    #[test]
    fn a_value_is_read_with_and_without_its_optional_fields() {
        let value =
            decode_value(br#"{"cellId":"c","incarnation":"i","ttlSeconds":5,"futureField":true}"#)
                .expect("readable");
        assert_eq!(
            (value.phase, value.owner.as_str()),
            (super::super::PresencePhase::Held, "")
        );
        assert_eq!(decode_value(b"not json"), None);
        assert_eq!(decode_value(br#"{"cellId":"c"}"#), None);
        let poisoned = br#"{"cellId":"c","incarnation":"i","ttlSeconds":5,"epochBase":-1}"#;
        assert_eq!(decode_value(poisoned), None);
    }

    #[test]
    fn every_endpoint_has_its_turn() {
        let config = config(
            &["http://a:1", "http://b:1", "http://c:1"],
            [None, None, None],
        );
        for _ in 0..100 {
            assert!(config.first_turn() < 3);
        }
        assert_eq!(
            (0..4).map(|turn| config.endpoint(turn)).collect::<Vec<_>>(),
            ["http://a:1", "http://b:1", "http://c:1", "http://a:1"]
        );
    }
}
