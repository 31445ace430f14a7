//! Certificates made by `openssl`, and an etcd that asks for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diego_operator::presence::etcd::{EtcdConfig, PREFIX, key};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};
use etcd_client::{PutOptions, UserAddOptions};
use local_cluster::{ServerProcess, binary, free_port};

use crate::support::eventually;

fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).current_dir(dir).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// What `openssl ca` wants to have said; it alone can make a certificate for seconds.
const CONFIG: &str = "[ca]\ndefault_ca = one\n[one]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\n\
                      default_md = sha256\npolicy = any\nx509_extensions = ends\nunique_subject = no\n\
                      [any]\ncommonName = supplied\n\
                      [ends]\nsubjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth,clientAuth\n";

/// An authority: `<name>.pem` and `<name>.key`.
pub fn authority(dir: &Path, name: &str) -> PathBuf {
    fs::write(dir.join("config"), CONFIG).expect("written");
    fs::write(dir.join("index.txt"), "").expect("written");
    let [pem, key] = ["pem", "key"].map(|ending| format!("{name}.{ending}"));
    let subject = format!("/CN={name}");
    let args = [
        "req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &pem,
    ];
    run(dir, "openssl", &[&args[..], &NEW_KEY].concat());
    dir.join(pem)
}

/// A certificate for 127.0.0.1 and the user `name`, signed by `ca`: `<name>.pem` and `<name>.key`.
pub fn certificate(dir: &Path, name: &str, ca: &str) -> (PathBuf, PathBuf) {
    short_lived(dir, name, ca, Duration::from_secs(86_400)).0
}

/// The same, which ends so soon; and when that is.
pub fn short_lived(
    dir: &Path,
    name: &str,
    ca: &str,
    life: Duration,
) -> ((PathBuf, PathBuf), SystemTime) {
    let [pem, key, csr] = ["pem", "key", "csr"].map(|ending| format!("{name}.{ending}"));
    let [ca_pem, ca_key] = ["pem", "key"].map(|ending| format!("{ca}.{ending}"));
    let subject = format!("/CN={name}");
    let request = ["req", "-subj", &subject, "-keyout", &key, "-out", &csr];
    run(dir, "openssl", &[&request[..], &NEW_KEY].concat());
    let end = SystemTime::now() + life;
    let seconds = end
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let end_date = run(
        dir,
        "date",
        &["-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"],
    );
    run(
        dir,
        "openssl",
        &[
            "ca", "-batch", "-config", "config", "-notext", "-cert", &ca_pem, "-keyfile", &ca_key,
            "-enddate", &end_date, "-in", &csr, "-out", &pem,
        ],
    );
    ((dir.join(pem), dir.join(key)), end)
}

/// An etcd that serves by TLS and wants to know who asks.
pub struct TlsEtcd {
    _process: ServerProcess,
    pub port: u16,
    pub ca: PathBuf,
    dir: PathBuf,
}

impl TlsEtcd {
    /// Starts it with an authority `ca` in this directory.
    pub async fn start(dir: &Path) -> Self {
        let ca = authority(dir, "ca");
        let (server_cert, server_key) = certificate(dir, "server", "ca");
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
        let process = ServerProcess::start("etcd", &program, &args, &[], &dir.join("log"));
        let etcd = Self {
            _process: process.expect("started"),
            port,
            ca,
            dir: dir.to_owned(),
        };
        certificate(dir, "root", "ca");
        let root = etcd.config("root");
        eventually("the store answers", async || {
            let client = connect(&root).await;
            client.kv_client().get("any", None).await.is_ok()
        })
        .await;
        etcd
    }

    /// How a user is configured whose certificate is in the directory under its name.
    pub fn config(&self, user: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![format!("https://127.0.0.1:{}", self.port)],
            ca: Some(self.ca.clone()),
            cert: Some(self.dir.join(format!("{user}.pem"))),
            key: Some(self.dir.join(format!("{user}.key"))),
        }
    }

    /// Turns authorization on, for the user `root`; gives its client.
    pub async fn with_auth(&self) -> Client {
        let root = connect(&self.config("root")).await;
        let mut auth = root.auth_client();
        auth.role_add("root").await.expect("a role");
        add_user(&root, "root", "root").await;
        auth.auth_enable().await.expect("authorization is on");
        root
    }
}

/// A user who is known by its certificate alone.
pub async fn add_user(root: &Client, user: &str, role: &str) {
    let by_certificate = Some(UserAddOptions::new().with_no_pwd());
    let mut auth = root.auth_client();
    auth.user_add(user, "", by_certificate)
        .await
        .expect("a user");
    auth.user_grant_role(user, role).await.expect("its role");
}

/// The role that docs/security.md gives one Cell.
pub async fn add_cell_role(root: &Client, cell: &str) {
    let role = format!("diego-cell-{cell}");
    let mut auth = root.auth_client();
    auth.role_add(role.as_str()).await.expect("a role");
    auth.role_grant_permission(role, Permission::read_write(key(cell)))
        .await
        .expect("its right");
}

/// The role that docs/security.md gives the controllers.
pub async fn add_controller_role(root: &Client) {
    let mut auth = root.auth_client();
    auth.role_add("diego-controller").await.expect("a role");
    auth.role_grant_permission("diego-controller", Permission::read(PREFIX).with_prefix())
        .await
        .expect("its right");
}

/// A client of the test's own.
pub async fn connect(config: &EtcdConfig) -> Client {
    let file = |path: &Option<PathBuf>| {
        let path = path.as_ref().expect("a file");
        fs::read(path).expect("readable")
    };
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(file(&config.ca)))
        .identity(Identity::from_pem(file(&config.cert), file(&config.key)));
    let options = ConnectOptions::new().with_tls(tls);
    Client::connect(&config.endpoints, Some(options))
        .await
        .expect("a client")
}

/// Writes another value under a lease of its own.
pub fn under(lease: i64) -> Option<PutOptions> {
    Some(PutOptions::new().with_lease(lease))
}
