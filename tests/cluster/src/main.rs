//! `local-cluster`: runs a local cluster until Ctrl-C, for use by hand and by scripts.

use local_cluster::{Error, LocalCluster, Options};
use std::{
    env,
    io::{Write, stdout},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Runs a Kubernetes API on free loopback ports until Ctrl-C.

usage: local-cluster [--no-controllers]

  --no-controllers  only etcd and kube-apiserver: no garbage collection

Prints `export KUBECONFIG=...` as soon as the cluster works. DIEGO_KEEP_LOGS=1 keeps its directory with the logs.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut options = Options::default();
    for arg in env::args().skip(1) {
        match arg.as_str() {
            "--no-controllers" => options.garbage_collection = false,
            "-h" | "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("local-cluster: unknown argument {arg}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Error> {
    let catch = |source| Error::Io {
        what: "catch signals".to_owned(),
        source,
    };
    // From before the start on: a Ctrl-C meanwhile must not leave the cluster's directory behind.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(catch)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(catch)?;
    let serve = async {
        let cluster = LocalCluster::start(options).await?;
        // A closed standard output is no reason to stop.
        let _ = writeln!(
            stdout(),
            "export KUBECONFIG={}",
            cluster.kubeconfig().display()
        );
        let _ = stdout().flush();
        eprintln!(
            "local-cluster: {} with logs in {}; Ctrl-C stops it",
            cluster.server_url(),
            cluster.dir().display()
        );
        std::future::pending::<Result<(), Error>>().await
    };
    tokio::select! {
        result = serve => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
