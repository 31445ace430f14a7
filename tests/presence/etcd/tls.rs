//! Presence over mutual TLS: both sides prove who they are, or nothing is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use diego_operator::presence::PresenceStore;
use diego_operator::presence::etcd::{EtcdConfig, EtcdStore};
use diego_operator::presence::store::StoreConfig;
use local_cluster::{ServerProcess, binary, free_port};

use crate::support::*;

/// Runs `openssl`, which makes the certificates of this test.
fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(args)
        .output()
        .expect("this test needs openssl on PATH");
    assert!(
        output.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// An authority: `<name>.pem` and `<name>.key`.
fn authority(dir: &Path, name: &str) -> PathBuf {
    let (pem, key, subject) = (
        format!("{name}.pem"),
        format!("{name}.key"),
        format!("/CN={name}"),
    );
    let args = [
        "req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &pem,
    ];
    openssl(dir, &[&args[..], &NEW_KEY].concat());
    dir.join(pem)
}

/// A certificate for 127.0.0.1, signed by `ca`: `<name>.pem` and `<name>.key`.
fn certificate(dir: &Path, name: &str, ca: &str) -> (PathBuf, PathBuf) {
    let [pem, key, csr] = ["pem", "key", "csr"].map(|ending| format!("{name}.{ending}"));
    let (ca_pem, ca_key, subject) = (
        format!("{ca}.pem"),
        format!("{ca}.key"),
        format!("/CN={name}"),
    );
    let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
    fs::write(dir.join("extensions"), extensions).expect("written");
    openssl(
        dir,
        &[
            &["req", "-subj", &subject, "-keyout", &key, "-out", &csr][..],
            &NEW_KEY,
        ]
        .concat(),
    );
    let sign = [
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &csr,
        "-out",
        &pem,
        "-extfile",
        "extensions",
    ];
    let by = ["-CA", &ca_pem, "-CAkey", &ca_key, "-CAcreateserial"];
    openssl(dir, &[&sign[..], &by].concat());
    (dir.join(pem), dir.join(key))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let tmp = tempfile::tempdir().expect("a directory");
    let dir = tmp.path();
    let ca = authority(dir, "ca");
    let (server_cert, server_key) = certificate(dir, "server", "ca");
    let (cert, key) = certificate(dir, "client", "ca");

    let (port, peer) = (free_port().expect("a port"), free_port().expect("a port"));
    let args = [
        format!("--data-dir={}", dir.join("data").display()),
        format!("--listen-client-urls=https://127.0.0.1:{port}"),
        format!("--advertise-client-urls=https://127.0.0.1:{port}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        format!("--cert-file={}", server_cert.display()),
        format!("--key-file={}", server_key.display()),
        format!("--trusted-ca-file={}", ca.display()),
        "--client-cert-auth".into(),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ];
    let program = binary("etcd").expect("etcd");
    let _server =
        ServerProcess::start("etcd", &program, &args, &[], &dir.join("log")).expect("started");
    let good = EtcdConfig {
        endpoints: vec![format!("https://127.0.0.1:{port}")],
        ca: Some(ca),
        cert: Some(cert),
        key: Some(key),
    };
    eventually("the store answers", async || {
        EtcdStore::connect(good.clone()).await.is_ok()
    })
    .await;

    // All three users of the store.
    let mut watch = Watch::synced(StoreConfig::Etcd(good.clone())).await;
    let (_rep, registered) = Rep::registered(StoreConfig::Etcd(good.clone()), "a", 5).await;
    assert_eq!(watch.until_held("a").await.epoch, registered.epoch);
    let store = EtcdStore::connect(good.clone()).await.expect("connected");
    assert_eq!(
        store
            .get("a")
            .await
            .expect("read")
            .presence
            .expect("there")
            .epoch,
        registered.epoch
    );

    let nobody = EtcdConfig {
        cert: None,
        key: None,
        ..good.clone()
    };
    EtcdStore::connect(nobody)
        .await
        .expect_err("the store wants to know who asks");
    let strangers = authority(dir, "strangers");
    let mistrust = EtcdConfig {
        ca: Some(strangers),
        ..good.clone()
    };
    EtcdStore::connect(mistrust)
        .await
        .expect_err("the store is not known to this authority");
    let (cert, key) = certificate(dir, "stranger", "strangers");
    let stranger = EtcdConfig {
        cert: Some(cert),
        key: Some(key),
        ..good.clone()
    };
    EtcdStore::connect(stranger)
        .await
        .expect_err("the client is not known to the store");
    let missing = EtcdConfig {
        ca: Some(dir.join("missing.pem")),
        ..good
    };
    let error = EtcdStore::connect(missing)
        .await
        .expect_err("no such file")
        .to_string();
    assert!(
        error.contains("missing.pem") && error.contains("--etcd-ca"),
        "{error}"
    );
}
