//! The programs take the arguments that the chart gives them.

use clap::Parser;
use diego_operator::config::{Cli, Program};
use serde_json::Value;

use crate::helm::{Failure, find, objects, text, variants};

/// The node in these tests.
pub const NODE: &str = "ip-10-0-0-1.example.internal";

/// The arguments of the first container, with its environment filled in as the kubelet does.
pub fn arguments(object: &Value) -> Vec<String> {
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    let container = if container.is_null() {
        &object["spec"]["containers"][0]
    } else {
        container
    };
    let args = container["args"].as_array().expect("arguments");
    let args = args.iter().map(|arg| {
        text(arg)
            .replace("$(NODE_NAME)", NODE)
            .replace("$(POD_NAMESPACE)", "diego-system")
    });
    args.collect()
}

fn parse(object: &Value) -> Program {
    let mut args = arguments(object);
    args.insert(0, "diego".into());
    match Cli::try_parse_from(&args) {
        Ok(cli) => cli.program,
        Err(error) => panic!("{args:?}\n{error}"),
    }
}

#[test]
fn the_programs_take_what_the_chart_gives_them() -> Result<(), Failure> {
    for values in variants() {
        let objects = objects(&values)?;
        let Program::Controller(args) = parse(find(&objects, "Deployment", "-controller")) else {
            panic!("not the controller");
        };
        assert!(args.leader.leader_elect);
        args.leader.validate()?;
        args.tasks.validate()?;
        let Program::Rep(rep) = parse(find(&objects, "DaemonSet", "-rep")) else {
            panic!("not the rep");
        };
        rep.validate()?;
        assert_eq!(
            rep.fence().is_some(),
            values.ends_with("fencing-values.yaml")
        );
        if values.ends_with("minimal-values.yaml") {
            continue;
        }
        let Program::Check(_) = parse(find(&objects, "Pod", "-test")) else {
            panic!("not the check");
        };
    }
    Ok(())
}

/// What the chart says unasked is what the programs do unasked, so that there is one set of defaults.
#[test]
fn the_chart_has_the_programs_defaults() -> Result<(), Failure> {
    let objects = objects(&crate::helm::variant("default"))?;
    let Program::Controller(args) = parse(find(&objects, "Deployment", "-controller")) else {
        panic!("not the controller");
    };
    let Program::Controller(plain) =
        Cli::try_parse_from(["diego", "controller", "--leader-elect"])?.program
    else {
        panic!("not the controller");
    };
    assert_eq!(
        args.convergence_interval_seconds,
        plain.convergence_interval_seconds
    );
    assert_eq!(args.write_concurrency, plain.write_concurrency);
    assert_eq!(format!("{:?}", args.tasks), format!("{:?}", plain.tasks));
    assert_eq!(format!("{:?}", args.nodes), format!("{:?}", plain.nodes));
    assert_eq!(
        format!("{:?}", args.auction()),
        format!("{:?}", plain.auction())
    );
    assert_eq!(format!("{:?}", args.leader), format!("{:?}", plain.leader));
    Ok(())
}
