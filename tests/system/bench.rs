//! The benchmark of scale itself, at its smallest size: it measures all that it reports, says so when a fleet does not
//! fit, and reports what it has when it is cut off.

#[path = "../../benches/scale/mod.rs"]
mod scale;

use tokio_util::sync::CancellationToken;

use crate::support::Failure;
use scale::plan::{Plan, Store};

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_size_measures_everything() -> Result<(), Failure> {
    let plans = Plan::named("tiny")?;
    let (report, failed) = scale::measure(&plans, &CancellationToken::new()).await?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let text = report.text();
    assert!(report.whole(), "{text}");
    let run = &report.runs[0];
    let wrong = run.wrong.as_ref().ok_or("nothing was wrong")?;
    assert!(
        wrong.instances == 1 && wrong.placed <= wrong.running,
        "{text}"
    );
    let leaders = run.leaders.as_ref().ok_or("no new leader")?;
    assert!(
        leaders.cold.is_some() && leaders.acted.is_some() && leaders.together.is_some(),
        "{text}"
    );
    let presences = report.runs[1].presences.as_ref().ok_or("no presences")?;
    assert!(
        presences.per_second() > 0.0 && presences.false_expiries == 0.0,
        "{text}"
    );
    let ended = presences.ended.as_ref().ok_or("none ended")?;
    assert_eq!(ended.cells, report.runs[1].plan.cells - 1, "{text}");
    let few = report.runs[2].few.as_ref().ok_or("no few")?;
    assert!(few.running.is_some_and(|all| all.count == 1), "{text}");
    for row in [
        "one Cell lost",
        "1 % wrong",
        "new leader",
        "presence",
        "sharpest TTL",
    ] {
        assert!(
            report.figures.iter().any(|one| one.row == row),
            "{row}: {text}"
        );
    }
    let what: Vec<_> = run.losses.iter().map(|loss| loss.what).collect();
    assert_eq!(what, ["one Cell", "a tenth", "a zone"], "{text}");
    for loss in &run.losses {
        assert!(loss.per_second > 0.0, "{text}");
        let placed = loss.stage("kill -> all placed").ok_or("no stage")?;
        assert!(placed.max < 30.0 && placed.p50 <= placed.max, "{text}");
        assert!(loss.traffic.watch_events > 0.0, "{text}");
    }
    // A zone has more than one Cell, and what came to them from those before.
    assert!(run.losses[2].instances > run.losses[0].instances, "{text}");
    assert!(run.raw.iter().all(|raw| raw.per_second > 0.0), "{text}");
    assert_eq!(
        run.idle.as_ref().ok_or("no pass")?.requests().1,
        0.0,
        "{text}"
    );
    let renewals = run.renewals.as_ref().ok_or("no renewals")?;
    assert!(renewals.answered.is_some(), "{text}");

    let dir = tempfile::tempdir()?;
    for file in report.write(dir.path())? {
        let content = std::fs::read_to_string(&file)?;
        let name = file.display().to_string();
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("json") => drop(serde_json::from_str::<serde_json::Value>(&content)?),
            Some("svg") => assert!(content.contains("raw") || content.contains("p99"), "{name}"),
            _ => assert!(content.contains("| kill -> all placed |"), "{content}"),
        }
    }
    let summary = scale::summary::of(dir.path(), "tiny")?;
    assert!(
        summary.contains("| one Cell lost | kill -> all placed, p99, s |"),
        "{summary}"
    );
    assert!(scale::summary::of(dir.path(), "full").is_err());
    let line = report.last_line();
    for word in ["placed/raw", "TTL", "idle pass", "per instance"] {
        assert!(line.contains(word), "{word} is missing: {line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_it_reports_what_it_has() -> Result<(), Failure> {
    let plans = [Plan {
        store: Store::Kubernetes,
        ..Plan::named("tiny")?.remove(0)
    }];
    let cut = CancellationToken::new();
    let until = cut.clone();
    let (report, failed) = tokio::join!(scale::measure(&plans, &cut), async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        until.cancel();
    })
    .0?;
    assert!(failed.is_none() && !report.whole());
    assert!(
        report.last_line().contains("cut off"),
        "{}",
        report.last_line()
    );
    Ok(())
}

#[test]
fn a_fleet_that_does_not_fit_is_refused_with_what_to_do() -> Result<(), Failure> {
    let plan = Plan::named("full")?.remove(2);
    let refused = scale::machine::fits(&plan, 8 << 30, 3 << 30);
    let message = refused.err().ok_or("it fits")?.to_string();
    for word in ["1000 Cells", "250 instances", "8.0 GiB", "3.0 GiB", "SIZE"] {
        assert!(message.contains(word), "{word} is missing: {message}");
    }
    assert!(
        Plan::named("huge").is_err_and(|error| error.to_string().contains("tiny, small or full"))
    );
    Ok(())
}
