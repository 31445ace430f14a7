//! docs/diego.md lists every rule of Diego's with the test that shows it: all of them, and tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// The ids of the feature table that the rules are held against, and how many each letter has.
const IDS: [(&str, std::ops::RangeInclusive<u32>); 7] = [
    ("P", 1..=12),
    ("C", 1..=16),
    ("T", 1..=6),
    ("R", 1..=3),
    ("A", 1..=3),
    ("E", 1..=1),
    ("O", 2..=5),
];

#[test]
fn every_rule_names_where_it_lives_and_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/diego.md")).expect("docs/diego.md is there");
    let mut sources = String::new();
    for part in ["src", "tests"] {
        collect(&root.join(part), &mut sources);
    }
    let mut missing: BTreeSet<String> = IDS
        .into_iter()
        .flat_map(|(letter, numbers)| numbers.map(move |number| format!("{letter}{number}")))
        .collect();
    let mut problems = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, lives, shown] = cells[..] else {
            continue;
        };
        if !missing.remove(id) {
            continue;
        }
        for file in quoted(lives).filter(|word| word.starts_with("src/")) {
            if !root.join(file).exists() {
                problems.push(format!("{id}: there is no {file}"));
            }
        }
        let tests: Vec<&str> = quoted(shown).collect();
        if tests.is_empty() {
            problems.push(format!("{id} names no test"));
        }
        for test in tests {
            let exists = if test.ends_with(".txt") || test.ends_with('/') {
                root.join("tests/converge").join(test).exists()
            } else {
                sources.contains(&format!("fn {test}("))
            };
            if !exists {
                problems.push(format!("{id}: there is no test {test}"));
            }
        }
    }
    problems.extend(missing.iter().map(|id| format!("{id} is not in the table")));
    assert!(
        problems.is_empty(),
        "docs/diego.md:\n{}",
        problems.join("\n")
    );
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn collect(path: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(path).expect("a directory can be read") {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("a source file can be read"));
        }
    }
}
