//! The cluster's own certificate authority, serving certificate, service-account key and tokens.

use crate::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::{
    fs::File,
    io::Read,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// The key material of one cluster, as files for the API server and as what clients have to trust.
pub(crate) struct Pki {
    /// The authority's certificate, for clients that read PEM.
    pub(crate) ca_pem: String,
    /// The same for clients that read DER.
    pub(crate) ca: CertificateDer<'static>,
    /// The file with the authority's certificate.
    pub(crate) ca_file: PathBuf,
    /// The file with the API server's certificate.
    pub(crate) cert_file: PathBuf,
    /// The file with the API server's key.
    pub(crate) key_file: PathBuf,
    /// The file with the certificate by which kubelets know the API server.
    pub(crate) kubelet_client_cert: PathBuf,
    /// The file with that certificate's key.
    pub(crate) kubelet_client_key: PathBuf,
    /// The file with the key that signs service-account tokens.
    pub(crate) service_account_key: PathBuf,
    /// The file with the public key that proves them.
    pub(crate) service_account_public: PathBuf,
}

impl Pki {
    /// Makes all keys anew (ECDSA P-256: made in a millisecond) and writes them into `dir`. `addresses` are those at which the API
    /// server is called besides the loopback address.
    pub(crate) fn new(dir: &Path, addresses: &[Ipv4Addr]) -> Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "local-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(bad)?).map_err(bad)?;

        let names = [
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let mut names = names.map(String::from).to_vec();
        names.extend(addresses.iter().map(Ipv4Addr::to_string));
        let mut params = CertificateParams::new(names).map_err(bad)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(bad)?;
        let cert = params.signed_by(&key, &issuer).map_err(bad)?;

        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver-kubelet-client");
        // The group to which kubelets, who ask the API server, allow everything.
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let kubelet_key = KeyPair::generate().map_err(bad)?;
        let kubelet_cert = params.signed_by(&kubelet_key, &issuer).map_err(bad)?;

        let accounts = KeyPair::generate().map_err(bad)?;
        let ca_pem = issuer.pem();
        Ok(Self {
            ca_file: write(dir, "ca.crt", &ca_pem)?,
            cert_file: write(dir, "apiserver.crt", &cert.pem())?,
            key_file: write(dir, "apiserver.key", &key.serialize_pem())?,
            kubelet_client_cert: write(dir, "kubelet-client.crt", &kubelet_cert.pem())?,
            kubelet_client_key: write(dir, "kubelet-client.key", &kubelet_key.serialize_pem())?,
            service_account_key: write(dir, "service-account.key", &accounts.serialize_pem())?,
            service_account_public: write(dir, "service-account.pub", &accounts.public_key_pem())?,
            ca: issuer.der().clone(),
            ca_pem,
        })
    }
}

/// A token that nobody can guess: 32 hexadecimal digits.
pub(crate) fn token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let source = "/dev/urandom";
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io(format!("read {source}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes one file into the directory, which only its owner can read.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    std::fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
    Ok(file)
}

fn bad(error: rcgen::Error) -> Error {
    Error::Certificate(error.to_string())
}
