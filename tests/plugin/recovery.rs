//! What is shown of a Cell that was lost: `distribution`, `recoveries`, `top` and `trace`.

use diego_operator::api::CellState;

use crate::support::{Failure, eventually, objects as make, site::START, site::Site};
use crate::{Plugin, objects};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cell_is_shown_from_every_side() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("cell-1", "z1"), ("cell-2", "z2")] {
        site.start_rep(cell, zone, &["--max-containers", "4"])
            .await?;
    }
    let plugin = Plugin::of(&site);
    let none = plugin.run("recoveries").await?;
    assert_eq!((none.status, &*none.stdout), (0, ""));
    assert!(none.stderr.contains("no Cell has been lost"));

    site.desire(&make::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    site.run_task(&make::task("migrate", "sleep 100000"))
        .await?;
    site.run_task(&make::task("report", "sleep 100000")).await?;
    let picture = eventually("both Tasks run", START, || async {
        let text = plugin.ok("distribution").await.ok()?;
        (text.matches("■■●").count() == 2).then_some(text)
    })
    .await?;
    for part in [
        "z1: 1 Cell, 2 instances, 1 Task\n",
        "z2: 1 Cell, 2 instances, 1 Task\n",
        "cell-1                  Ready",
    ] {
        let part = part.replace("                  ", " ");
        assert!(picture.contains(&part), "{part}: {picture}");
    }

    site.kill_cell("cell-2").await;
    site.cell_state("cell-2", CellState::Missing).await?;
    // One instance finds room on cell-1, and for the other there is none: its suspect is kept.
    let picture = eventually("one is placed, one waits", START, || async {
        let text = plugin.ok("distribution").await.ok()?;
        let placed = text.contains("no Cell: 1 instance\n");
        (placed && text.contains("■■■●\n") && text.contains("4/4")).then_some(text)
    })
    .await?;
    let line = |name: &str| {
        let found = picture.lines().find(|line| line.starts_with(name));
        found.unwrap_or_default().to_owned()
    };
    assert!(line("cell-2").contains(" Missing "), "{picture}");
    assert!(line("cell-2").ends_with("  ▒"), "{picture}");
    assert!(
        picture.contains(": insufficient resources: containers\n"),
        "{picture}"
    );
    assert!(picture.contains("▒ suspect"), "{picture}");
    let narrow = Plugin {
        columns: "40",
        ..Plugin::of(&site)
    };
    let text = narrow.ok("distribution -A -o wide").await?;
    assert!(
        text.lines().all(|line| line.chars().count() <= 40),
        "{text}"
    );
    assert!(text.contains("  ▒\n  default/web 1 suspect\n"), "{text}");

    let cells = objects(&plugin.ok("distribution -o json").await?)?;
    assert_eq!(
        (&cells[1]["name"], &cells[1]["state"], &cells[1]["zone"]),
        (&"cell-2".into(), &"Missing".into(), &"z2".into())
    );
    assert_eq!(cells[1]["blocks"][0]["mark"], "Suspect");
    assert_eq!(cells[1]["blocks"][0]["desiredLRP"], "web");
    let ids = plugin.ok("distribution -o name").await?;
    assert_eq!(
        ids,
        "cell.diego.cloudfoundry.org/cell-1\ncell.diego.cloudfoundry.org/cell-2\n"
    );

    recoveries(&site, &plugin).await?;
    top(&plugin).await?;
    trace(&plugin).await
}

async fn recoveries(site: &Site, plugin: &Plugin) -> Result<(), Failure> {
    let recovery = eventually("the recovery is told of", START, || async {
        let cell = site.cells().get("cell-2").await.ok()?;
        let recovery = cell.status?.last_recovery?;
        recovery.recovered_time.is_some().then_some(recovery)
    })
    .await?;
    let text = plugin.ok("recoveries").await?;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0].join(" "),
        "CELL ZONE STATE LOST DETECTED RECOVERED LRPS WAITING TASKS"
    );
    assert_eq!(rows.len(), 2, "only what was lost: {text}");
    assert_eq!(rows[1][..3], ["cell-2", "z2", "Missing"]);
    assert_eq!(rows[1][4], "ago");
    assert!(rows[1][5].starts_with('+') && rows[1][6].starts_with('+'));
    let numbers = [
        recovery.actual_lrps,
        recovery.waiting_actual_lrps,
        recovery.tasks,
    ];
    assert_eq!(rows[1][7..], numbers.map(|number| number.to_string()));
    let one = objects(&plugin.ok("recoveries -o json cell/cell-2").await?)?;
    assert_eq!(one[0]["cell"], "cell-2");
    assert_eq!(one[0]["epoch"], recovery.epoch);
    // A busy machine may hear of it by another way than the watch first.
    assert_eq!(one[0]["source"].as_str(), recovery.source.as_deref());
    Ok(())
}

async fn top(plugin: &Plugin) -> Result<(), Failure> {
    let text = plugin.ok("top --no-headers").await?;
    let first = text.lines().next().unwrap_or_default();
    let first: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(first[..3], ["cell-1", "z1", "Ready"], "{text}");
    assert!(first.contains(&"4/4"), "{text}");
    let yaml = plugin.ok("top cell-1 -o yaml").await?;
    assert!(
        yaml.contains("cell: cell-1\n") && yaml.contains("containers: 4\n"),
        "{yaml}"
    );
    Ok(())
}

async fn trace(plugin: &Plugin) -> Result<(), Failure> {
    // Events are told a little after what they tell of.
    let entries = eventually("the whole story is told", START, || async {
        let text = plugin.ok("trace cell/cell-2 -o json").await.ok()?;
        text.contains("CellRecoveryPartlyFailed")
            .then(|| objects(&text).ok())?
    })
    .await?;
    let words: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["what"].as_str())
        .collect();
    let order = [
        "Created",
        "CellPresenceAcquired",
        "PresenceLost",
        "LossDetected",
        "CellPresenceExpired",
    ];
    let mut rest = words.iter();
    for word in order {
        assert!(rest.any(|told| *told == word), "{word} in {words:?}");
    }
    assert!(words.contains(&"Recovered") && words.contains(&"Ready=False"));
    let text = plugin.ok("trace cell/cell-2").await?;
    assert!(text.starts_with("TIME (UTC) "), "{text}");
    let task = plugin.run("trace task/migrate").await?;
    let task = match task.stdout.contains("CellMissing") {
        true => task,
        false => plugin.run("trace task/report").await?,
    };
    assert!(
        task.stdout.contains("cell disappeared before completion"),
        "{}",
        task.stdout
    );
    let lrp = plugin.ok("trace actuallrp/web-0").await?;
    assert!(lrp.contains("instance 0 of web"), "{lrp}");
    assert!(lrp.contains("ActualLRPPlaced"), "{lrp}");
    Ok(())
}
