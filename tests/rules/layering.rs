//! The rules stay pure: no client, no runtime, no clock, no randomness under them.

use std::path::{Path, PathBuf};

/// What must not appear in the pure modules, and why.
const FORBIDDEN: [(&str, &str); 12] = [
    ("tokio", "a rule waits for nothing"),
    ("kube::Client", "a rule talks to nobody"),
    ("kube::Api", "a rule talks to nobody"),
    ("kube::runtime", "a rule watches nothing"),
    ("etcd_client", "a rule talks to nobody"),
    ("async fn", "a rule waits for nothing"),
    (".await", "a rule waits for nothing"),
    ("Timestamp::now", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("Uuid::new", "guids are arguments"),
    ("std::fs", "a rule reads nothing"),
];

/// The pure modules: the rules, the API's data, the view of who is alive, where callbacks may go, who leads, and what a check finds.
const PURE: [&str; 9] = [
    "src/converge",
    "src/api",
    "src/presence/view.rs",
    "src/presence/view",
    "src/presence/kubernetes/deadlines.rs",
    "src/callback/policy.rs",
    "src/controller/leader/decide.rs",
    "src/fence/watch.rs",
    "src/plugin/check/rules",
];

#[test]
fn the_pure_modules_are_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for part in PURE {
        collect(&root.join(part), &mut files);
    }
    assert!(
        files.len() > 15,
        "only {} files were looked at: has a module moved?",
        files.len()
    );
    let mut problems = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file can be read");
        // Tests at the end of a file may do as they like.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (line, content) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| content.contains(word)) {
                let name = file
                    .strip_prefix(root)
                    .unwrap_or(&file)
                    .display()
                    .to_string();
                problems.push(format!("{name}:{}: `{word}`: {why}", line + 1));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Every write of the controller passes the gate: only two places make clients, one for the lanes, and one for the
/// Lease, which is written by who does not lead yet.
#[test]
fn the_controllers_clients_are_made_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src/controller"), &mut files);
    let makes_clients = |file: &&PathBuf| {
        let text = std::fs::read_to_string(file).expect("a source file can be read");
        [
            "client::build",
            "Client::new(",
            "Client::try_",
            "ClientBuilder",
        ]
        .iter()
        .any(|word| text.contains(word))
    };
    let mut found: Vec<_> = files
        .iter()
        .filter(makes_clients)
        .filter_map(|file| file.strip_prefix(root).ok())
        .collect();
    found.sort();
    let expected = ["src/controller/clients.rs", "src/controller/leader.rs"].map(Path::new);
    assert_eq!(found, expected);
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a source directory can be read") {
            collect(
                &entry.expect("a source directory can be read").path(),
                files,
            );
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.ends_with("tests.rs") {
            files.push(path.to_owned());
        }
    }
}
