//! `helm lint` and the suites of helm-unittest.

use crate::helm::{Failure, chart, run, tool, variants};

#[test]
fn helm_lint_finds_nothing() -> Result<(), Failure> {
    for values in variants() {
        let mut lint = tool("helm")?;
        lint.args(["lint", "--strict", "--values"]).arg(&values);
        let said = run(lint.arg(chart()))?;
        assert!(
            !said.contains("[WARNING]") && !said.contains("[INFO]"),
            "{}: {said}",
            values.display()
        );
    }
    Ok(())
}

#[test]
fn the_suites_of_helm_unittest_pass() -> Result<(), Failure> {
    let mut suites = tool("helm-unittest")?;
    let said = run(suites.arg("--strict").arg(chart()))?;
    assert!(said.contains("Test Suites: 6 passed, 6 total"), "{said}");
    Ok(())
}
