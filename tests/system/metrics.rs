//! The metrics of both programs as Prometheus reads them, against what `docs/operating.md` says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Failure, eventually, http, objects, site::START, site::Site};

/// Labels with values that nobody can list; they are few all the same.
const OPEN: [&str; 7] = [
    "code", "method", "verb", "host", "version", "revision", "rustc",
];

/// A metric as it is documented: its labels, and their values.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// What the tables below the line `heading` say.
fn documented(docs: &str, heading: &str) -> BTreeMap<String, Labels> {
    let mut found = BTreeMap::new();
    let rows = docs.lines().skip_while(|line| *line != heading).skip(1);
    let rows = rows.skip_while(|line| !line.starts_with('|'));
    for row in rows.take_while(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, names, labels, meaning, _] = cells[..] else {
            panic!("not three columns: {row}");
        };
        assert!(!meaning.is_empty(), "no meaning: {row}");
        for name in names.split(", ") {
            let known = found.insert(name.to_owned(), labels_in(labels));
            assert_eq!(known, None, "{name} is documented twice");
        }
    }
    assert!(!found.is_empty(), "no table below {heading}");
    found
}

/// `source: watch, resync; kind` as labels and values; one without values is open.
fn labels_in(text: &str) -> Labels {
    let mut labels = Labels::new();
    for part in text.split("; ").filter(|part| !part.is_empty()) {
        match part.split_once(": ") {
            Some((label, values)) => {
                let values = values.split(", ").map(str::to_owned).collect();
                labels.insert(label.into(), values);
            }
            None => labels.extend(
                part.split(", ")
                    .map(|label| (label.into(), BTreeSet::new())),
            ),
        }
    }
    labels
}

/// A metric as it is served.
#[derive(Debug, Default)]
struct Served {
    kind: String,
    labels: Labels,
}

/// Reads the classic text format, as strictly as Prometheus does.
fn served(text: &str) -> BTreeMap<String, Served> {
    let mut found: BTreeMap<String, Served> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and a text");
            assert!(helped.insert(name.to_owned()), "{name} has two help texts");
            let one_dot = help.ends_with('.') && !help.ends_with("..");
            assert!(one_dot, "{name}: the help text ends badly: {help}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(helped.contains(name), "{name} has no help text");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(
                name.matches("_total").count(),
                usize::from(kind == "counter"),
                "counters and nothing else end in _total: {line}"
            );
            let served = Served {
                kind: kind.into(),
                ..Served::default()
            };
            let twice = found.insert(name.to_owned(), served);
            assert!(twice.is_none(), "{name} is there twice");
            current = name.to_owned();
        } else {
            assert!(!line.starts_with('#'), "not of the classic format: {line}");
            let (what, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok(), "no number: {line}");
            assert!(series.insert(what.to_owned()), "{what} is there twice");
            let (name, labels) = what.split_once('{').unwrap_or((what, "}"));
            let metric = found.get_mut(&current).expect("a type comes first");
            let parts = match &*metric.kind {
                "histogram" => &["_bucket", "_sum", "_count"][..],
                _ => &[""][..],
            };
            let own = parts.iter().any(|part| name == format!("{current}{part}"));
            assert!(own, "{name} is not part of {current}");
            let labels = labels.strip_suffix('}').expect("the end of the labels");
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").expect("a label");
                let value = value.strip_suffix('"').unwrap_or(value);
                if label != "le" {
                    let values = metric.labels.entry(label.into()).or_default();
                    values.insert(value.into());
                }
            }
        }
    }
    found
}

/// Every metric that is served is documented as it is, and the other way round.
fn assert_same(program: &str, docs: &BTreeMap<String, Labels>, text: &str) {
    let served = served(text);
    let names = |all: Vec<&String>| all.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(served.keys().collect()),
        names(docs.keys().collect()),
        "{program}: what is served (left) and what docs/operating.md says (right)"
    );
    for (name, metric) in served {
        let mut labels = metric.labels;
        for (label, values) in labels.iter_mut() {
            if OPEN.contains(&label.as_str()) {
                assert!(
                    values.len() < 10,
                    "{name}: {label} has too many values: {values:?}"
                );
                assert!(
                    values.iter().all(|value| !value.is_empty()),
                    "{name}: {label}"
                );
                values.clear();
            }
        }
        assert_eq!(
            labels, docs[&name],
            "{program}: the labels of {name} as served (left) and documented (right)"
        );
    }
}

/// The answer's head and body.
async fn scrape(port: u16, accept: &str) -> Result<(String, String), Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the head")?;
    Ok((head.to_lowercase(), body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_is_documented() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    site.run_task(&objects::task("once", "true")).await?;
    site.running("web", 2, |_| true).await?;

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let docs = std::fs::read_to_string(docs)?;
    let both = documented(&docs, "Both:");
    let port = site.rep("a").metrics_port;
    for (program, heading, port) in [
        (
            "the controller",
            "Controller:",
            site.controller().metrics_port,
        ),
        ("the rep", "Rep:", port),
    ] {
        let mut docs = documented(&docs, heading);
        docs.extend(both.clone());
        let (head, text) = scrape(port, "").await?;
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert_same(program, &docs, &text);

        // Prometheus 3 asks like this.
        let accept = "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
        let (head, text) = scrape(port, accept).await?;
        let openmetrics =
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(head.contains(openmetrics), "{head}");
        assert!(text.ends_with("# EOF\n"), "no end: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn convergence_runs_are_counted_and_what_only_they_find() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    // Without Cells and work a run is over at once; it is one all the same.
    let args = [
        "--disable-presence-watch",
        "--convergence-interval-seconds",
        "2",
    ];
    site.start_controller(&args).await?;
    let value = async |series: &str| site.metric(series).await.unwrap_or(-1.0);
    let startup = "diego_convergence_runs_total{trigger=\"startup\"}";
    let resync = "diego_convergence_runs_total{trigger=\"resync\"}";
    eventually("the first run is over", START, || async {
        (value(startup).await == 1.0).then_some(())
    })
    .await?;

    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    let before = site.metric(resync).await?;
    eventually("runs follow each other", START, || async {
        let now = site.metric(resync).await.ok()?;
        (now >= before + 2.0).then_some(())
    })
    .await?;
    let text = site.metrics().await?;
    let value = |series: &str| http::metric(&text, series).unwrap_or(-1.0);
    let runs = value(resync) + value("diego_convergence_runs_total{trigger=\"startup\"}");
    assert_eq!(
        value("diego_convergence_runs_total{trigger=\"leader\"}"),
        0.0
    );
    assert_eq!(value("diego_convergence_duration_seconds_count"), runs);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let age = since.as_secs_f64() - value("diego_convergence_last_success_timestamp_seconds");
    assert!((0.0..30.0).contains(&age), "{age} s since the last success");
    let corrections = |text: &str| {
        let of = |kind: &str| {
            let series = format!("diego_convergence_corrections_total{{kind=\"{kind}\"}}");
            http::metric(text, &series)
        };
        (
            of("CellMissing"),
            of("ActualLRPCreated"),
            of("ActualLRPDeleted"),
        )
    };
    assert_eq!(
        corrections(&text),
        (Some(0.0), Some(0.0), Some(0.0)),
        "every change was told of"
    );

    site.kill_cell("b").await;
    site.running("web", 4, |cell| cell == "a").await?;
    eventually("the correction is counted", START, || async {
        let text = site.metrics().await.ok()?;
        (corrections(&text).0 == Some(1.0)).then_some(())
    })
    .await?;
    Ok(())
}
