//! What an operator does: `cordon`, `uncordon`, `evacuate`, `retire` and `cancel`.

use std::time::Duration;

use diego_operator::api::{CellState, TaskState};
use kube::ResourceExt;

use crate::support::{Failure, eventually, objects as make, site::START, site::Site};
use crate::{Plugin, objects};

async fn task_is(site: &Site, name: &str, state: TaskState) -> Result<(), Failure> {
    eventually(&format!("{name} is {state:?}"), START, || async {
        let task = site.tasks().get(name).await.ok()?;
        (task.status?.state == state).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_are_closed_emptied_and_opened_again() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    let plugin = Plugin::of(&site);
    for (cell, zone) in [("cell-1", "z1"), ("cell-2", "z2")] {
        site.start_rep(cell, zone, &[]).await?;
    }

    let done = plugin.ok("cordon cell-1").await?;
    assert_eq!(done, "cell.diego.cloudfoundry.org/cell-1 cordoned\n");
    let again = plugin.ok("cordon cell/cell-1").await?;
    assert_eq!(
        again,
        "cell.diego.cloudfoundry.org/cell-1 already cordoned\n"
    );
    site.desire(&make::sleepers("web", 3)).await?;
    site.running("web", 3, |cell| cell == "cell-2").await?;
    site.run_task(&make::task("long", "sleep 100000")).await?;
    task_is(&site, "long", TaskState::Running).await?;

    // The only other Cell is cordoned; the Task goes on, so that the time runs out.
    let said = plugin.run("evacuate cell-2 --timeout 15s").await?;
    assert_eq!((said.status, &*said.stdout), (3, ""), "{}", said.stderr);
    for words in [
        "no other Cell is Ready",
        "not done within 15 s: cell-2: Evacuating, 3 instances and 1 Task left; ",
        "with kubectl diego uncordon cell-2 it takes work again when it has ended",
    ] {
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }

    // Taken back while it is under way it goes on to its end all the same.
    let back = plugin.run("uncordon cell-2").await?;
    assert_eq!(
        (back.status, &*back.stdout),
        (0, "cell.diego.cloudfoundry.org/cell-2 uncordoned\n")
    );
    assert!(
        back.stderr
            .contains("cell-2 is being emptied: that goes on to its end"),
        "{}",
        back.stderr
    );
    let opened = plugin.ok("uncordon cell-1 -o json").await?;
    assert_eq!(objects(&opened)?[0]["result"], "uncordoned");
    let cancelled = plugin.ok("cancel task/long").await?;
    assert_eq!(cancelled, "task.diego.cloudfoundry.org/long cancelled\n");
    let said = plugin.run("evacuate cell-2").await?;
    assert_eq!(
        said.stdout,
        "cell.diego.cloudfoundry.org/cell-2 evacuated\n"
    );
    assert_eq!(said.status, 0, "{}", said.stderr);
    site.cell_state("cell-2", CellState::Evacuated).await?;
    site.running("web", 3, |cell| cell == "cell-1").await?;

    let task = plugin.run("cancel long").await?;
    assert_eq!(
        task.stdout,
        "task.diego.cloudfoundry.org/long already ended\n"
    );
    assert!(
        task.stderr.contains("long has failed already"),
        "{}",
        task.stderr
    );

    let opened = plugin.ok("uncordon cell-2 cell-1").await?;
    assert_eq!(
        opened,
        "cell.diego.cloudfoundry.org/cell-2 uncordoned\ncell.diego.cloudfoundry.org/cell-1 already uncordoned\n"
    );
    site.cell_state("cell-2", CellState::Present).await?;

    let before = site.actual().get("web-1").await?;
    let retired = plugin.ok("retire web-1 -o name").await?;
    assert_eq!(retired, "actuallrp.diego.cloudfoundry.org/web-1\n");
    eventually("a fresh instance stands there", START, || async {
        let after = site.actual().get("web-1").await.ok()?;
        (after.uid() != before.uid()).then_some(())
    })
    .await?;
    site.running("web", 3, |_| true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_dies_while_it_is_emptied_is_told_as_lost() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("cell-1", "z1"), ("cell-2", "z2")] {
        site.start_rep(cell, zone, &[]).await?;
    }
    for name in ["one", "two"] {
        site.run_task(&make::task(name, "sleep 100000")).await?;
        task_is(&site, name, TaskState::Running).await?;
    }
    let plugin = Plugin::of(&site);
    // Who does not want to wait is told that it goes on.
    let mut waits = plugin.command("evacuate cell-2 --timeout 0").spawn()?;
    let stderr = waits.stderr.take().ok_or("no stderr")?;
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stderr));
    let mut next = async || -> Result<String, Failure> {
        let line = tokio::time::timeout(START, lines.next_line()).await??;
        Ok(line.ok_or("it said no more")?)
    };
    while !next().await?.contains("Evacuating, ") {}
    let pid = i32::try_from(waits.id().ok_or("it has ended")?)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGINT,
    )?;
    while !next()
        .await?
        .contains("it goes on by itself; wait again with")
    {}
    assert_eq!(waits.wait().await?.code(), Some(130));

    let emptied = plugin.command("evacuate cell-2 --timeout 0").spawn()?;
    site.cell_state("cell-2", CellState::Evacuating).await?;
    site.kill_cell("cell-2").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), emptied.wait_with_output());
    let output = ended.await??;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("cell-2 was lost") && stderr.contains("1 Cell could not be evacuated"),
        "{stderr}"
    );
    // Nobody is there to hear it.
    let again = plugin.fails("evacuate cell-1 cell-2", 1).await?;
    assert!(
        again.contains("cell-2 is Missing: nothing runs there to move"),
        "{again}"
    );
    let other = site.cells().get("cell-1").await?;
    assert_eq!(
        other.spec.evacuate, None,
        "nothing was asked of the other one"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_done_also_when_nobody_reads_on() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for name in ["cell-1", "cell-2"] {
        site.start_rep(name, "z1", &[]).await?;
    }
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let plugin = Plugin::of(&site);
    let mut command = plugin.command("cordon cell-1 cell-2");
    let output = command.stdout(writer).output().await?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    for name in ["cell-1", "cell-2"] {
        let cell = site.cells().get(name).await?;
        assert_eq!(cell.spec.unschedulable, Some(true), "{name}");
    }
    Ok(())
}
