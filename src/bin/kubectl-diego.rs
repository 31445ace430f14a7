//! The `kubectl-diego` program, which kubectl runs for `kubectl diego`.

use std::process::ExitCode;

fn main() -> ExitCode {
    diego_operator::plugin::main(std::env::args_os())
}
