//! The installation the demo plays on: four Cells in two zones, and the manifests under `examples/`.

use std::path::Path;
use std::time::Instant;

use diego_operator::api::TaskState;

use crate::support::{Failure, eventually, site::START, site::Site};

const CELLS: [(&str, &str); 4] = [
    ("cell-1", "z1"),
    ("cell-2", "z1"),
    ("cell-3", "z2"),
    ("cell-4", "z2"),
];

/// How many instances `examples/web.yaml` wants.
const INSTANCES: i32 = 12;

/// A running installation.
pub struct Stage {
    pub site: Site,
}

impl Stage {
    /// Starts everything.
    pub async fn set(controller: &[&str]) -> Result<Self, Failure> {
        let began = Instant::now();
        let said = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
        let mut site = Site::start().await?;
        said("a kube-apiserver and an etcd for the presences are running, the CRDs are installed");
        site.start_controller(controller).await?;
        said("the controller is ready");
        for (cell, zone) in CELLS {
            site.start_rep(cell, zone, &[]).await?;
        }
        said("four Cells in two zones are Present");
        Ok(Stage { site })
    }

    /// Applies the manifests, the long Task under the name given, and waits until they run.
    pub async fn play(&self, long_task: &str) -> Result<(), Failure> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let long = std::fs::read_to_string(examples.join("long-task.yaml"))?;
        let renamed = self.site.dir().join("long-task.yaml");
        std::fs::write(
            &renamed,
            long.replace("name: long", &format!("name: {long_task}")),
        )?;
        self.apply(&examples.join("web.yaml")).await?;
        self.apply(&examples.join("short-tasks.yaml")).await?;
        self.settled().await?;
        self.apply(&renamed).await?;
        eventually("the long Task runs", START, || async {
            let task = self.site.tasks().get(long_task).await.ok()?;
            (task.status?.state == TaskState::Running).then_some(())
        })
        .await
    }

    async fn apply(&self, path: &Path) -> Result<(), Failure> {
        let output = self
            .site
            .cluster
            .kubectl(&["apply", "-f", &path.display().to_string()])
            .await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(())
    }

    /// Waits until all twelve servers run and everything that is shown has caught up with it.
    pub async fn settled(&self) -> Result<(), Failure> {
        eventually(
            "twelve servers run and the counts are right",
            START,
            || async {
                let desired = self.site.desired().get("web").await.ok()?.status?;
                let cells = self
                    .site
                    .cells()
                    .list(&Default::default())
                    .await
                    .ok()?
                    .items;
                let counted: i32 = cells
                    .iter()
                    .filter_map(|cell| cell.status.as_ref()?.actual_lrps)
                    .sum();
                (desired.running == INSTANCES && counted == INSTANCES).then_some(())
            },
        )
        .await
    }

    /// Takes the servers away, so that they are spread anew over all Cells.
    pub async fn clear(&self) -> Result<(), Failure> {
        self.site
            .desired()
            .delete("web", &Default::default())
            .await?;
        eventually("the servers are gone", START, || async {
            self.site
                .instances("web")
                .await
                .ok()?
                .is_empty()
                .then_some(())
        })
        .await
    }

    /// A new Cell under the old name.
    pub async fn replace_cell(&mut self, name: &str) -> Result<(), Failure> {
        let zone = CELLS
            .iter()
            .find(|(cell, _)| *cell == name)
            .map_or("z1", |(_, zone)| zone);
        self.site.start_rep(name, zone, &[]).await
    }

    /// Another controller, with other flags.
    pub async fn restart_controller(&mut self, flags: &[&str]) -> Result<(), Failure> {
        self.site.kill_controller().await;
        self.site.start_controller(flags).await
    }

    /// What kubectl shows.
    pub async fn show(&self) -> Result<(), Failure> {
        self.kubectl(&["get", "cells,desiredlrps,tasks.diego.cloudfoundry.org"])
            .await
    }

    /// The Events of a Cell.
    pub async fn show_events(&self, cell: &str) -> Result<(), Failure> {
        self.kubectl(&[
            "events",
            "--for",
            &format!("cell.diego.cloudfoundry.org/{cell}"),
            "--types=Warning",
        ])
        .await
    }

    async fn kubectl(&self, args: &[&str]) -> Result<(), Failure> {
        println!("\n$ kubectl {}", args.join(" "));
        let output = self.site.cluster.kubectl(args).await?;
        print!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
