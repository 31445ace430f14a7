//! `distribution -w`: drawn anew at each change, also after the connection was lost.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};

use crate::Plugin;
use crate::support::{Failure, objects as make, proxy::Proxy, site::START, site::Site};

/// Reads until a line has these words.
async fn told<R: AsyncRead + Unpin>(
    lines: &mut Lines<BufReader<R>>,
    words: &str,
) -> Result<(), Failure> {
    let search = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(words) {
                return Ok(());
            }
        }
        Err(format!("it ended without {words}").into())
    };
    let in_time = tokio::time::timeout(START, search).await;
    in_time.map_err(|_| format!("not told: {words}"))?
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_a_loss_and_outlives_its_connection() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("cell-1", "z1"), ("cell-2", "z2")] {
        site.start_rep(cell, zone, &["--max-containers", "2"])
            .await?;
    }
    let server = site.cluster.server_url();
    let target = server
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .to_owned();
    let proxy = Proxy::start(target.clone()).await?;
    let text = std::fs::read_to_string(site.cluster.kubeconfig())?;
    let kubeconfig = site.dir().join("by-proxy");
    std::fs::write(
        &kubeconfig,
        text.replace(&target, &proxy.address().to_string()),
    )?;

    let mut follows = Plugin::at(&kubeconfig).command("distribution -w").spawn()?;
    let mut stdout = BufReader::new(follows.stdout.take().ok_or("no stdout")?).lines();
    let mut stderr = BufReader::new(follows.stderr.take().ok_or("no stderr")?).lines();
    told(&mut stdout, "z2: 1 Cell, 0 instances").await?;
    site.desire(&make::sleepers("web", 4)).await?;
    told(&mut stdout, "  ■■").await?;
    site.kill_cell("cell-2").await;
    told(&mut stdout, "  ▒▒").await?;
    told(&mut stdout, "no Cell: 2 instances").await?;

    // A word from before is not what is waited for: a busy machine may have lost a watch already.
    while let Ok(line) = tokio::time::timeout(Duration::from_millis(100), stderr.next_line()).await
    {
        line?.ok_or("it has ended")?;
    }
    proxy.cut();
    told(&mut stderr, "is lost; trying again").await?;
    Plugin::of(&site).ok("cordon cell-1").await?;
    proxy.mend();
    told(&mut stderr, "is back").await?;
    told(&mut stdout, "Cordoned").await?;

    let pid = i32::try_from(follows.id().ok_or("it has ended")?)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGINT,
    )?;
    let ended = tokio::time::timeout(Duration::from_secs(10), follows.wait()).await??;
    assert_eq!(ended.code(), Some(0));
    Ok(())
}
