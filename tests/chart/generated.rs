//! What is generated in the chart is up to date; a stale file names the command that mends it.

use std::path::Path;

use crate::helm::{Failure, chart, root, run, tool};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_crds_are_those_of_the_types() -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let mut generate = std::process::Command::new(root().join("hack/chart.sh"));
    run(generate.arg("crds").arg(scratch.path()))?;
    let names = |dir: &Path| -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    };
    let (fresh, committed) = (
        scratch.path().join("templates/crds"),
        chart().join("templates/crds"),
    );
    assert_eq!(
        names(&fresh)?,
        names(&committed)?,
        "run `hack/chart.sh crds` and commit the result"
    );
    for name in names(&fresh)? {
        assert!(
            read(&fresh.join(&name)) == read(&committed.join(&name)),
            "charts/diego-operator/templates/crds/{name} differs from crds/: run `hack/chart.sh crds` and commit the result"
        );
    }
    Ok(())
}

#[test]
fn the_readme_is_that_of_the_values() -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    for file in ["Chart.yaml", "values.yaml", "README.md.gotmpl"] {
        std::fs::copy(chart().join(file), scratch.path().join(file))?;
    }
    let mut docs = tool("helm-docs")?;
    docs.args([
        "--log-level",
        "warning",
        "--sort-values-order",
        "file",
        "--chart-search-root",
    ]);
    run(docs.arg(scratch.path()))?;
    let fresh = read(&scratch.path().join("README.md"));
    assert!(fresh.contains("presence.ttlSeconds"), "{fresh}");
    assert!(
        fresh == read(&chart().join("README.md")),
        "charts/diego-operator/README.md is not that of values.yaml: run `hack/chart.sh readme` and commit the result"
    );
    Ok(())
}

/// The chart's version of the program is the program's.
#[test]
fn the_versions_are_one() {
    let chart = read(&chart().join("Chart.yaml"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("appVersion: \"{version}\"\n")),
        "appVersion is not {version}"
    );
    assert!(
        chart.contains(&format!(
            "kubeVersion: \">={}.0-0\"",
            diego_operator::client::OLDEST
        )),
        "kubeVersion"
    );
}
