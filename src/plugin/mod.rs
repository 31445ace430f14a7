//! `kubectl diego`: whether all is well, what runs where, what was lost, and what an operator may do about it, with the rights of the
//! user's own kubeconfig.
//!
//! What is shown is made by pure functions of objects, time and width; `Cluster` talks to the API
//! server and turns its refusals into words.

mod args;
mod cell_row;
mod cells;
mod check;
mod cluster;
mod complete;
mod distribution;
mod done;
mod evacuate;
mod failure;
#[cfg(test)]
mod fixtures;
mod kind;
mod losses;
mod mirror;
mod output;
mod probe;
mod right;
mod text;
mod top;
mod trace;
mod work;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use cluster::Cluster;
use failure::Failure;
use output::{Screen, print, say};

/// Under this name kubectl asks for completion.
const COMPLETE: &str = "kubectl_complete-diego";

/// Runs the command line; under the name `kubectl_complete-diego`, proposes how it may go on.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: nothing can be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let name = args.first().and_then(|path| Path::new(path).file_name());
    let result = match name.is_some_and(|name| name == COMPLETE) {
        true => {
            let words = args[1..]
                .iter()
                .map(|word| word.to_string_lossy().into_owned());
            let words: Vec<String> = words.collect();
            print(&runtime.block_on(complete::run(&words)))
        }
        // A command line that is wrong ends here, with status 2.
        false => runtime.block_on(run(Cli::parse_from(args))),
    };
    // A name server that does not answer is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::from(failure.status())
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    cli.check()?;
    let screen = Screen::new(&cli.common);
    let cluster = Cluster::new(&cli.common).await?;
    match &cli.verb {
        Verb::Check(args) => check::run(&cluster, args, &cli.common, &screen).await,
        Verb::Distribution(args) => distribution::run(&cluster, args, &screen).await,
        Verb::Top(args) => top::run(&cluster, &args.cells, &screen).await,
        Verb::Recoveries(args) => losses::run(&cluster, &args.cells, &screen).await,
        Verb::Trace(args) => trace::run(&cluster, &args.object, &screen).await,
        Verb::Cordon(args) => cells::cordon(&cluster, &args.cells, &screen).await,
        Verb::Uncordon(args) => cells::uncordon(&cluster, &args.cells, &screen).await,
        Verb::Evacuate(args) => evacuate::run(&cluster, args, &screen).await,
        Verb::Retire(args) => work::retire(&cluster, args, &screen).await,
        Verb::Cancel(args) => work::cancel(&cluster, &args.tasks, &screen).await,
    }
}
