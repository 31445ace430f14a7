//! Callbacks by https: whom the controller trusts, and what it does without anybody to trust.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diego_operator::api::conditions;

use super::failures::events;
use super::pair::extra_controller;
use super::receiver::Receiver;
use super::{QUICK, settled, status, task};
use crate::support::{Failure, objects, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn https_trusts_the_authorities_of_the_machine() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    // An https server whose authority no machine knows: the API server, which refuses strangers.
    let kubeconfig = kube::config::Kubeconfig::read_from(site.cluster.kubeconfig())?;
    let cluster = kubeconfig
        .clusters
        .into_iter()
        .next()
        .and_then(|named| named.cluster);
    let cluster = cluster.ok_or("the kubeconfig has a cluster")?;
    let data = cluster
        .certificate_authority_data
        .ok_or("and its authority")?;
    let authority = site.dir().join("authority.pem");
    std::fs::write(&authority, STANDARD.decode(data)?)?;
    let url = format!("{}/done", cluster.server.ok_or("and its server")?);

    let trusting = |file: &Path| {
        let file = ("SSL_CERT_FILE".to_owned(), file.display().to_string());
        [file, ("SSL_CERT_DIR".to_owned(), String::new())]
    };
    let controller = extra_controller(&site, &QUICK, &trusting(&authority)).await?;
    site.start_rep("a", "z1", &[]).await?;
    let tells = |name: &str| {
        let mut task = objects::task(name, "exit 0");
        task.spec.completion_callback_url = Some(url.clone());
        task.spec.ttl_seconds_after_finished = Some(600);
        task
    };
    site.run_task(&tells("trusted")).await?;
    let (_, truth, reason) = settled(&site, "trusted").await?;
    assert_eq!((&*truth, &*reason), ("False", "Refused"), "it has answered");
    controller.kill();
    controller.wait().await;

    site.start_controller(&QUICK).await?;
    site.run_task(&tells("stranger")).await?;
    let told = events(&site, "stranger", "TaskCallbackUnanswered").await?;
    assert!(told.to_lowercase().contains("certificate"), "{told}");
    site.kill_controller().await;

    // Without any authority the controller works, but for this.
    let none = trusting(Path::new("/nonexistent"));
    let controller = extra_controller(&site, &QUICK, &none).await?;
    let receiver = Receiver::start(200).await?;
    site.run_task(&task("plain", "exit 0", &receiver, None))
        .await?;
    receiver.told("plain", 1).await?;
    site.run_task(&tells("lonely")).await?;
    let told = events(&site, "lonely", "TaskCallbackUnanswered").await?;
    assert!(told.contains("ca-certificates"), "{told}");
    controller.kill();
    controller.wait().await;
    let status = status(&site, "stranger").await.ok_or("it is there")?;
    let told = conditions::get(&status.conditions, conditions::CALLBACK_DELIVERED);
    assert_eq!(told, None, "nothing is settled");
    Ok(())
}
