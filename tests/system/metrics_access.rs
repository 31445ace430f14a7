//! `/metrics` by TLS, for those only of whom the API server says that they may read it.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, PostParams};
use local_cluster::{Options, User};
use serde_json::json;

use crate::support::certs::self_signed;
use crate::support::{Failure, eventually, site::START, site::Site};

/// The status and the page that somebody gets who trusts `ca`; status 0 without a TLS connection.
fn scrape(port: u16, ca: &Path, token: Option<&str>) -> Result<(u16, String), Failure> {
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "20",
        "-w",
        "\n%{http_code}",
        "--cacert",
    ])
    .arg(ca)
    .arg(format!("https://127.0.0.1:{port}/metrics"));
    if let Some(token) = token {
        curl.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let output = String::from_utf8(curl.output()?.stdout)?;
    let (page, status) = output.rsplit_once('\n').ok_or("curl says nothing")?;
    Ok((status.parse()?, page.to_owned()))
}

/// The token with which a user logs in.
fn token(site: &Site, user: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(site.cluster.kubeconfig_for(user)?)?;
    let token = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "));
    Ok(token.ok_or("a token")?.to_owned())
}

/// What kubectl says, which must be something.
async fn kubectl(site: &Site, args: &[&str]) -> Result<String, Failure> {
    let output = site.cluster.kubectl(args).await?;
    let said = String::from_utf8(output.stdout)?.trim().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_those_who_may_read_them() -> Result<(), Failure> {
    let user = |name: &str| User {
        name: name.into(),
        groups: Vec::new(),
    };
    let mut site = Site::start_with(Options {
        users: vec![user("scraper"), user("stranger")],
        ..Options::default()
    })
    .await?;
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "metrics-reader"},
        "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "metrics-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "scraper"}],
    }))?;
    let post = PostParams::default();
    Api::all(site.client.clone()).create(&post, &role).await?;
    Api::all(site.client.clone())
        .create(&post, &binding)
        .await?;

    let (cert, key) = self_signed(site.dir(), "metrics")?;
    let [cert_flag, key_flag] = [
        format!("--metrics-tls-cert={}", cert.display()),
        format!("--metrics-tls-key={}", key.display()),
    ];
    let flags = [&*cert_flag, &key_flag, "--metrics-auth=token"];
    site.start_controller(&[&flags[..], &["--leader-elect"]].concat())
        .await?;
    site.start_rep("a", "z1", &flags).await?;
    let ports = [
        (site.controller().metrics_port, "diego_cells"),
        (site.rep("a").metrics_port, "diego_rep_"),
    ];
    let [scraper, stranger] = [token(&site, "scraper")?, token(&site, "stranger")?];
    for (port, metric) in ports {
        let (status, page) = scrape(port, &cert, Some(&scraper))?;
        assert_eq!(status, 200, "{page}");
        assert!(page.contains(metric), "{page}");
        for (token, wanted) in [
            (None, 401),
            (Some("nonsense"), 401),
            (Some(&*stranger), 403),
            // An answer that is remembered is the same.
            (Some("nonsense"), 401),
            (Some(&*stranger), 403),
            (Some(&*scraper), 200),
        ] {
            let (status, page) = scrape(port, &cert, token)?;
            assert_eq!(status, wanted, "{token:?}: {page}");
            assert!(status == 200 || !page.contains("diego_"), "{page}");
        }
        // In plain text nothing is served.
        let plain = format!("http://127.0.0.1:{port}/metrics");
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", &plain])
            .output()?;
        assert!(!output.status.success() && output.stdout.is_empty());
    }

    // A token that is meant for metrics alone is taken where that is asked for, and nowhere else.
    let own = ["--metrics-token-audience=diego-metrics"];
    site.start_rep("b", "z1", &[&flags[..], &own].concat())
        .await?;
    let account = "--serviceaccount=default:reader";
    let role = "--clusterrole=metrics-reader";
    kubectl(&site, &["create", "serviceaccount", "reader"]).await?;
    kubectl(
        &site,
        &["create", "clusterrolebinding", "reader", role, account],
    )
    .await?;
    let general = ["create", "token", "reader"];
    let meant = [&general[..], &["--audience=diego-metrics"]].concat();
    let (general, meant) = (
        kubectl(&site, &general).await?,
        kubectl(&site, &meant).await?,
    );
    let ports = ["a", "b"].map(|name| site.rep(name).metrics_port);
    for (token, wanted) in [
        (&general, [200, 401]),
        (&meant, [401, 200]),
        (&scraper, [200, 401]),
    ] {
        let found = [
            scrape(ports[0], &cert, Some(token))?.0,
            scrape(ports[1], &cert, Some(token))?.0,
        ];
        assert_eq!(found, wanted);
    }

    // The API server is away: who is known is served, of others nothing is known.
    site.cluster.stop_apiserver().await;
    let port = site.rep("a").metrics_port;
    assert_eq!(scrape(port, &cert, Some(&scraper))?.0, 200);
    assert_eq!(scrape(port, &cert, Some("another"))?.0, 503);
    site.cluster.restart_apiserver().await?;

    // A renewed certificate is taken on; a broken one is not.
    let old = site.dir().join("old.crt");
    std::fs::copy(&cert, &old)?;
    std::fs::write(&key, "no key")?;
    let (new_cert, new_key) = self_signed(site.dir(), "renewed")?;
    assert_eq!(scrape(port, &old, Some(&scraper))?.0, 200);
    std::fs::rename(&new_cert, &cert)?;
    std::fs::rename(&new_key, &key)?;
    eventually("the renewed certificate is served", START, || async {
        let served = scrape(port, &cert, Some(&scraper)).ok()?;
        (served.0 == 200).then_some(())
    })
    .await?;
    assert_eq!(scrape(port, &old, Some(&scraper))?.0, 0, "the old one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_that_can_not_work_are_told_at_once() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let (cert, key) = self_signed(dir.path(), "one")?;
    let (_, other_key) = self_signed(dir.path(), "two")?;
    let [cert, key, other_key] = [cert, key, other_key].map(|file| file.display().to_string());
    let missing = dir.path().join("missing").display().to_string();
    for (flags, words) in [
        (
            vec!["--metrics-auth=token".to_owned()],
            ["--metrics-auth", "--metrics-tls-cert"],
        ),
        (
            vec!["--metrics-token-audience=diego".to_owned()],
            ["--metrics-token-audience diego", "--metrics-auth token"],
        ),
        (
            vec![format!("--metrics-tls-cert={cert}")],
            ["--metrics-tls-cert", "--metrics-tls-key"],
        ),
        (
            vec![
                format!("--metrics-tls-cert={missing}"),
                format!("--metrics-tls-key={key}"),
            ],
            [&*missing, "--metrics-tls-cert"],
        ),
        (
            vec![
                format!("--metrics-tls-cert={cert}"),
                format!("--metrics-tls-key={other_key}"),
            ],
            [&*other_key, "--metrics-tls-key"],
        ),
    ] {
        for program in [&["controller"][..], &["rep", "--cell-id=a", "--memory=1Gi"]] {
            let output = Command::new(Site::program()?)
                .args(program)
                .args(&flags)
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{flags:?}");
            for word in words {
                assert!(said.contains(word), "{flags:?}: {said}");
            }
        }
    }
    Ok(())
}
