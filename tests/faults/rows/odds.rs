//! Tenants, operators and machines that do what they should not.

use std::time::Duration;

use diego_operator::api::{ActualLRPState, DesiredLRP};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::looks::none_ended;
use crate::observer::facts::{Fact, Within};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{Setup, Stage, THREE, WEB};
use crate::support::{Failure, eventually, objects, site::START};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 40,
            fault: "a Cell object is deleted while its rep is gone and no controller runs",
            promise: "it is gone at once, and what it ran runs elsewhere at most 8 s after a controller is back, and its start later",
            tried: Tried::Here {
                injected: "SIGKILL of controller and Cell, `kubectl delete cell`, the controller started again",
                protection: Protection::Seen {
                    without: "no object of ours has a finalizer (instead: the Cell has one)",
                    said: "the Cell was still there after 60 s",
                },
                short: false,
                run: |stage| Box::pin(deleted_cell(stage)),
            },
        },
        Row {
            number: 41,
            fault: "a namespace is deleted while its LRPs run",
            promise: "what ran there is stopped; the rest is not touched",
            tried: Tried::Here {
                injected: "`kubectl delete namespace`",
                protection: Protection::Seen {
                    without: "a rep stops what has no record",
                    said: "what ran there had not stopped within 60 s",
                },
                short: false,
                run: |stage| Box::pin(deleted_namespace(stage)),
            },
        },
        Row {
            number: 47,
            fault: "a rep claims what was not given to it",
            promise: "the claim takes no effect beyond its own record: the rep of the Cell in the claim says that it runs no such thing, and the instance is started again, once",
            tried: Tried::Here {
                injected: "the record of a running instance is written as running on another Cell, under another guid",
                protection: Protection::Seen {
                    without: "a rep gives back what it is said to run and does not",
                    said: "the false claim stood for 60 s",
                },
                short: false,
                run: |stage| Box::pin(false_claim(stage)),
            },
        },
        Row {
            number: 50,
            fault: "the Cell's disk can't be written",
            promise: "the rep ends before it registers, and says which file",
            tried: Tried::Here {
                injected: "a work directory on a file system that is full (tmpfs of one page)",
                protection: Protection::Seen {
                    without: "the identity is stored before it is used",
                    said: "the rep had not ended after 60 s",
                },
                short: false,
                run: |stage| Box::pin(full_disk(stage)),
            },
        },
    ]
}

async fn deleted_cell(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    stage.fault();
    stage.site.kill_controller().await;
    let lost = stage.cell("b");
    stage.site.kill_cell(&lost).await;
    stage
        .site
        .cells()
        .delete(&lost, &DeleteParams::default())
        .await?;
    eventually("the Cell is gone", START, || async {
        stage
            .site
            .cells()
            .get_opt(&lost)
            .await
            .ok()?
            .is_none()
            .then_some(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let since = stage.fault();
    stage.site.start_controller(&[]).await?;
    // A controller that begins believes no absence for one TTL; what is left is to list, and the read.
    let within = Within {
        promised: Duration::from_secs(8),
        allowance: Duration::from_secs(5),
    };
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    Ok(Figures::away(away).and("from the start of the controller"))
}

async fn deleted_namespace(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 6,
        tasks: 1,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let client = stage.site.client.clone();
    let name = stage.cell("tenant");
    let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let command = stage.observer().command()?;
    let spec = json!({ "containers": [{ "name": "main", "command": command }] });
    let mut theirs = objects::lrp("theirs", 6, spec);
    theirs.metadata.namespace = Some(name.clone());
    let api = Api::<DesiredLRP>::namespaced(client.clone(), &name);
    api.create(&PostParams::default(), &theirs).await?;
    let theirs = |stage: &Stage| {
        let living = stage.observer().living();
        living.iter().filter(|run| run.process == "theirs").count()
    };
    eventually("theirs runs", START, || async {
        (theirs(stage) == 6).then_some(())
    })
    .await?;
    let since = stage.fault();
    Api::<Namespace>::all(client)
        .delete(&name, &DeleteParams::default())
        .await?;
    eventually("what ran there has stopped", START, || async {
        (theirs(stage) == 0).then_some(())
    })
    .await?;
    let took = (crate::observer::facts::now() - since) as f64 / 1e9;
    stage.unmoved(&before).await?;
    none_ended(stage).await?;
    Ok(Figures::note(format!("all had stopped after {took:.1} s")))
}

async fn false_claim(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 3,
        tasks: 1,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let name = format!("{WEB}-0");
    let status = before[0].status.clone().unwrap_or_default();
    let cells = ["a", "b"].map(|cell| stage.cell(cell));
    let other = cells
        .iter()
        .find(|cell| status.cell_name.as_ref() != Some(cell));
    let other = other.ok_or("there is another Cell")?;
    let epoch = super::looks::epoch(stage, other).await?;
    let since = stage.fault();
    let guid = "never-was".to_owned();
    stage.observer().log.add(Fact::Forged { guid });
    let claim = Patch::Merge(json!({ "status": {
        "state": "Running", "cellName": other, "cellEpoch": epoch, "instanceGuid": "never-was",
    }}));
    let api = stage.site.actual();
    api.patch_status(&name, &PatchParams::default(), &claim)
        .await?;
    let now = eventually("it runs once, and not as claimed", START, || async {
        let now = stage.site.actual().get(&name).await.ok()?.status?;
        let honest = now.instance_guid.as_deref() != Some("never-was");
        (now.state == ActualLRPState::Running && honest).then_some(now)
    })
    .await?;
    let took = (crate::observer::facts::now() - since) as f64 / 1e9;
    let place = match now.cell_name == status.cell_name {
        true => "where it was",
        false => "on another Cell",
    };
    Ok(Figures::note(format!(
        "started again {place} after {took:.1} s"
    )))
}

async fn full_disk(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("full");
    let dir = stage.site.dir().join(&cell);
    std::fs::create_dir(&dir)?;
    let mount = [
        "-t".into(),
        "tmpfs".into(),
        "-o".into(),
        "size=4k,mode=700".into(),
        "faults".into(),
        dir.display().to_string(),
    ];
    run("mount", &mount).await?;
    // The one page there is.
    let filled = std::fs::write(dir.join("taken"), [0; 4096]);
    let ended = ends(stage, &cell).await;
    run("umount", &[dir.display().to_string()]).await?;
    filled?;
    let said = ended?;
    if !said.contains("--work-dir") {
        return Err(format!("it does not say why it ends: {said}").into());
    }
    let made = stage.site.cells().get_opt(&cell).await?;
    if made.and_then(|cell| cell.status?.state).is_some() {
        return Err("it has registered".into());
    }
    stage.unmoved(&before).await?;
    none_ended(stage).await?;
    Ok(Figures::default())
}

/// Starts a rep that must end by itself, and returns what it said.
async fn ends(stage: &Stage, cell: &str) -> Result<String, Failure> {
    let rep = stage.site.start_extra_rep(cell, cell, &[])?;
    let status = tokio::time::timeout(START, rep.wait()).await?;
    let said = std::fs::read_to_string(rep.log())?;
    match status.success() {
        true => Err(format!("it ended well: {said}").into()),
        false => Ok(said),
    }
}

async fn run(program: &str, args: &[String]) -> Result<(), Failure> {
    let output = tokio::process::Command::new(program)
        .args(args)
        .output()
        .await?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {args:?}: {output:?}").into()),
    }
}
