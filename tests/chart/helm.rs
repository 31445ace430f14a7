//! The chart and its values files, helm and the other tools, and what helm renders as values.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The release's name and namespace in all tests.
pub const RELEASE: &str = "diego-operator";
pub const NAMESPACE: &str = "diego-system";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn chart() -> PathBuf {
    root().join("charts/diego-operator")
}

/// The values files that stand for all variants.
pub fn variants() -> Vec<PathBuf> {
    let files = std::fs::read_dir(chart().join("ci")).expect("charts/diego-operator/ci");
    let mut files: Vec<PathBuf> = files.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

pub fn variant(name: &str) -> PathBuf {
    chart().join("ci").join(format!("{name}-values.yaml"))
}

/// A program of `make setup`, apart from the user's settings.
pub fn tool(name: &str) -> Result<Command, Failure> {
    let mut command = Command::new(local_cluster::binary(name)?);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, std::env::temp_dir().join("diego-chart-helm"));
    }
    command.env_remove("KUBECONFIG").current_dir(root());
    Ok(command)
}

pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs it, and gives what it said; an error if it failed.
pub fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    if output.status.success() {
        Ok(said(&output))
    } else {
        Err(format!("{command:?}\n{}", said(&output)).into())
    }
}

/// `helm template` with more arguments.
pub fn template(args: &[&str]) -> Result<String, Failure> {
    let mut command = tool("helm")?;
    command.args(["template", RELEASE]).arg(chart());
    command.args(["--namespace", NAMESPACE]).args(args);
    run(&mut command)
}

/// The same with a values file.
pub fn render(values: &Path) -> Result<String, Failure> {
    template(&["--values", &values.display().to_string()])
}

/// The objects in a stream of YAML documents.
pub fn parse(yaml: &str) -> Result<Vec<Value>, Failure> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|it| !it.is_null()).collect())
}

pub fn objects(values: &Path) -> Result<Vec<Value>, Failure> {
    parse(&render(values)?)
}

/// The one object of this kind whose name ends so.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects
        .iter()
        .filter(|it| it["kind"] == kind && text(&it["metadata"]["name"]).ends_with(name));
    let object = found
        .next()
        .unwrap_or_else(|| panic!("there is no {kind} {name}"));
    assert!(
        found.next().is_none(),
        "there is more than one {kind} {name}"
    );
    object
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
