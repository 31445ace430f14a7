//! As kubectl runs it: by its name, and for completion by the name of the companion.

use std::os::unix::fs::symlink;

use tokio::process::Command;

use crate::Plugin;
use crate::support::{Failure, objects as make, site::Site};

/// kubectl with the plugin on its PATH.
async fn kubectl(site: &Site, args: &[&str]) -> Result<String, Failure> {
    let bin = site.dir().join("bin");
    let path = std::env::var("PATH")?;
    let mut command = Command::new(local_cluster::binary("kubectl")?);
    command
        .args(args)
        .env("KUBECONFIG", site.cluster.kubeconfig())
        .env("KUBECACHEDIR", site.dir().join("cache"))
        .env("PATH", format!("{}:{path}", bin.display()));
    let output = command.output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_and_completes_it() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("cell-1", "z1", &[]).await?;
    site.desire(&make::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;
    let bin = site.dir().join("bin");
    std::fs::create_dir(&bin)?;
    for name in ["kubectl-diego", "kubectl_complete-diego"] {
        symlink(Plugin::program(), bin.join(name))?;
    }
    let top = kubectl(&site, &["diego", "top", "-o", "name"]).await?;
    assert_eq!(top, "cell.diego.cloudfoundry.org/cell-1\n");
    let help = kubectl(&site, &["diego", "--help"]).await?;
    for words in [
        "Usage: kubectl diego ",
        "Exit status:",
        "evacuate",
        "--context",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    for (typed, proposals) in [
        (&["tr"][..], &["trace\t"][..]),
        (&["cordon", ""], &["cell-1\n"]),
        (&["retire", "we"], &["web-0\n"]),
        (&["trace", ""], &["cell/cell-1\n", "actuallrp/web-0\n"]),
        (&["top", "-n", "kube-s"], &["kube-system\n"]),
        (&["top", "-o", ""], &["wide\t", "json\t"]),
    ] {
        let line = [&["__complete", "diego"], typed].concat();
        let text = kubectl(&site, &line).await?;
        for proposal in proposals {
            assert!(text.contains(proposal), "{typed:?}: {text}");
        }
        assert!(text.contains(":4"), "{typed:?}: {text}");
    }
    Ok(())
}
