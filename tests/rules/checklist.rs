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
    let mut sources = Sources::default();
    for part in ["src", "tests"] {
        sources.collect(root, &root.join(part));
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
        for place in quoted(lives).filter(|place| !sources.know(place)) {
            problems.push(format!("{id}: there is no {place}"));
        }
        let tests: Vec<&str> = quoted(shown).collect();
        if tests.is_empty() {
            problems.push(format!("{id} names no test"));
        }
        for test in tests {
            let exists = if test.ends_with(".txt") || test.ends_with('/') {
                root.join("tests/converge").join(test).exists()
            } else {
                sources.tests.contains(test)
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

/// What the sources hold.
#[derive(Default)]
struct Sources {
    /// Files and directories, from the project's root.
    paths: Vec<String>,
    text: String,
    /// Functions that are run as tests.
    tests: BTreeSet<String>,
}

impl Sources {
    fn collect(&mut self, root: &Path, path: &Path) {
        let name = path.strip_prefix(root).unwrap_or(path);
        self.paths.push(name.display().to_string());
        if path.is_dir() {
            for entry in std::fs::read_dir(path).expect("a directory can be read") {
                self.collect(root, &entry.expect("a directory can be read").path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).expect("a source file can be read");
            self.find_tests(&text);
            self.text.push_str(&text);
        }
    }

    fn find_tests(&mut self, text: &str) {
        // Run against each presence store; a name that is no function there does not compile.
        if let Some((_, contract)) = text.split_once("\ncontract! {") {
            let names = contract.lines().filter_map(|line| line.strip_suffix(','));
            self.tests.extend(names.map(|name| name.trim().to_owned()));
        }
        let (mut is_test, mut is_ignored) = (false, false);
        for line in text.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
            let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) else {
                continue;
            };
            if std::mem::take(&mut is_test) && !std::mem::take(&mut is_ignored) {
                let name = rest.split('(').next().unwrap_or_default();
                self.tests.insert(name.to_owned());
            }
        }
    }

    /// A file or directory, a flag, or `Type::member`.
    fn know(&self, place: &str) -> bool {
        if let Some(flag) = place.strip_prefix("--") {
            return self.text.contains(&flag.replace('-', "_"));
        }
        match place.rsplit_once("::") {
            Some((of, member)) => self.text.contains(of) && self.text.contains(member),
            None => self
                .paths
                .iter()
                .any(|path| path == place || path.ends_with(&format!("/{place}"))),
        }
    }
}

/// Files that the documents name by their path are there.
#[test]
fn files_that_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("SECURITY.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            match path.extension().and_then(|it| it.to_str()) {
                Some("md") => documents.push(path),
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    let (mut named, mut missing) = (0, Vec::new());
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("it can be read");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)));
        for word in words.map(|word| word.trim_end_matches(['.', '/', '-'])) {
            let top = word.split_once('/').map(|(top, _)| top);
            if matches!(
                top,
                Some("src" | "tests" | "benches" | "hack" | "charts" | "crds" | "docs")
            ) {
                named += 1;
                if !root.join(word).exists() {
                    missing.push(format!("{}: {word}", document.display()));
                }
            }
        }
    }
    assert!(named > 100, "only {named} paths were found");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
