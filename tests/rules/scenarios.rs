//! Runs the scenario files under `tests/converge/`: each reads as a specification of the rules.
//!
//! A file is a list of blocks, separated by blank lines. The first lines of a block change the world (`now`,
//! `cell`, `node`, `no-node`, `pod`, `desired`, `lrp`, `task`, `gone`), its last line is a question, and below `----` stands the answer:
//! what the controller plans (`converge`), what it makes of a presence (`presence`), what a rep does next (`rep`), or what becomes of the record when a rep
//! speaks (`claim`, `start`, `evacuate`, `crash`, `give-back`, `complete`, `reject`). `rules` sets the knobs. `UPDATE_SCENARIOS=1 cargo test --test rules` writes what the rules do now into the
//! files; read the difference before you commit it.

mod judge;
mod nodes;
mod read;
mod say;
mod speak;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::world::{Sandbox, at};
use read::number;

#[test]
fn every_scenario_comes_out_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/converge");
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut failures = Vec::new();
    let mut files = Vec::new();
    collect(&directory, &mut files);
    files.sort();
    assert!(
        files.len() >= 80,
        "only {} scenario files were found",
        files.len()
    );
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a scenario can be read");
        let actual = run(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        if actual == text {
            continue;
        }
        if update {
            std::fs::write(&path, &actual).expect("a scenario can be written");
        } else {
            let name = path.strip_prefix(&directory).unwrap_or(&path).display();
            failures.push(format!("{name}:\n{}", difference(&text, &actual)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("tests/converge can be read") {
        let path = entry.expect("tests/converge can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
}

fn difference(expected: &str, actual: &str) -> String {
    let mut text = String::new();
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), actual.lines().collect());
    for i in 0..expected.len().max(actual.len()) {
        let (want, got) = (
            expected.get(i).copied().unwrap_or(""),
            actual.get(i).copied().unwrap_or(""),
        );
        if want != got {
            let _ = writeln!(text, "  line {}: written {want:?}, came out {got:?}", i + 1);
        }
    }
    text
}

/// The file's text with what comes out in the place of what is expected.
fn run(text: &str) -> Result<String, String> {
    let mut sandbox = Sandbox::default();
    let mut now = 0;
    let mut output = String::new();
    let mut skipping = false;
    for line in text.lines() {
        if skipping {
            if !line.trim().is_empty() {
                continue;
            }
            skipping = false;
        }
        let _ = writeln!(output, "{line}");
        let mut words = line.split_whitespace();
        let Some(command) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        let came_out = match command {
            "now" => {
                now = number(rest.first().ok_or("now needs a time")?)?;
                None
            }
            "rules" => read::rules(&mut sandbox, &rest).map(|()| None)?,
            "cell" => read::cell(&mut sandbox, &rest).map(|()| None)?,
            "desired" => read::desired(&mut sandbox, &rest).map(|()| None)?,
            "lrp" => read::lrp(&mut sandbox, &rest, now).map(|()| None)?,
            "task" => read::task(&mut sandbox, &rest, now).map(|()| None)?,
            "node" => nodes::node(&mut sandbox, &rest).map(|()| None)?,
            "pod" => nodes::pod(&mut sandbox, &rest).map(|()| None)?,
            "no-node" => nodes::no_node(&mut sandbox, &rest).map(|()| None)?,
            "gone" => read::gone(&mut sandbox, &rest).map(|()| None)?,
            "converge" => {
                let plan = sandbox.converge(&read::scope(&rest)?, at(now));
                Some(say::plan(&plan))
            }
            "presence" => Some(judge::presence(&mut sandbox, &rest, at(now))?),
            "rep" => Some(speak::rep_has(&sandbox, &rest)?),
            "claim" | "start" | "evacuate" | "crash" | "give-back" | "complete" | "reject" => {
                Some(speak::rep_says(&mut sandbox, command, &rest, at(now))?)
            }
            other => return Err(format!("unknown command {other:?}")),
        };
        if let Some(text) = came_out {
            let _ = write!(output, "----\n{text}");
            // What stands below is what was expected.
            skipping = true;
        }
    }
    Ok(output)
}
