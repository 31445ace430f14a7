//! On a terminal: colours, its width, and one picture over the other.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::Plugin;
use crate::support::{Failure, eventually, objects as make, site::START, site::Site};

/// Runs the plugin on a terminal of 40 columns.
async fn on_a_terminal(site: &Site, line: &str, no_colour: bool) -> Result<String, Failure> {
    let program = Plugin::program();
    // A -w is ended as ctrl-c would.
    let shell = format!("stty cols 40 rows 12; exec timeout -s INT 15 {program} {line}");
    let mut command = Command::new("script");
    command
        .args(["-qec", &shell, "/dev/null"])
        .env("KUBECONFIG", site.cluster.kubeconfig())
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm")
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if no_colour {
        command.env("NO_COLOR", "1");
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = ended.await??;
    let text = String::from_utf8(output.stdout)?;
    // A -w that is told to end says so with what timeout makes of it.
    let expected = if line.ends_with("-w") { 124 } else { 0 };
    assert_eq!(output.status.code(), Some(expected), "{line}: {text}");
    println!("$ kubectl diego {line}\n{text}");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_columns_are_enough() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("cell-1", "z1", &[]).await?;
    site.desire(&make::sleepers("web", 3)).await?;
    site.running("web", 3, |_| true).await?;

    let coloured = on_a_terminal(&site, "distribution", false).await?;
    assert!(coloured.contains("\x1b[32m■\x1b[0m"), "{coloured:?}");
    for line in [
        "distribution",
        "distribution -o wide",
        "top",
        "recoveries",
        "trace cell/cell-1",
    ] {
        let text = on_a_terminal(&site, line, true).await?;
        assert!(text.trim() != "", "{line}");
        assert!(!text.contains('\x1b'), "{line}: {text:?}");
        for shown in text.lines() {
            let shown = shown.trim_end_matches('\r');
            assert!(
                shown.chars().count() <= 40 || line == "recoveries",
                "{line}: {shown}"
            );
        }
    }
    // The Cell's own account of its load follows what it runs.
    eventually("top counts the three", START, || async {
        let top = on_a_terminal(&site, "top", true).await.ok()?;
        top.contains("  CONTAINERS  3/").then_some(())
    })
    .await?;

    let live = on_a_terminal(&site, "distribution -w", true).await?;
    assert!(live.starts_with("\x1b[2J\x1b[H"), "{live:?}");
    assert!(live.contains("UTC: live; ctrl-c ends it\r\n"), "{live:?}");
    assert!(live.contains("\x1b[2K  ■■■\r\n"), "{live:?}");
    Ok(())
}
