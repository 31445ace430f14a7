//! `local-cluster`: runs a local cluster until Ctrl-C, for use by hand and by scripts.

use local_cluster::{Error, LocalCluster, Nodes, NodesOptions, Options, image};
use std::{
    env,
    io::{Write, stdout},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Runs a Kubernetes API on free loopback ports until Ctrl-C.

usage: local-cluster [--no-controllers | --nodes N]

  --no-controllers  only etcd and kube-apiserver: no garbage collection
  --nodes N         also N nodes with real kubelets, with the image test-app:dev; needs root and `hack/setup.sh e2e`

Prints `export KUBECONFIG=...` as soon as the cluster works. DIEGO_KEEP_LOGS=1 keeps its directory with the logs.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut options = Options::default();
    let mut nodes = 0;
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--nodes" => match args.next().and_then(|count| count.parse().ok()) {
                Some(count) => nodes = count,
                None => {
                    eprintln!("local-cluster: --nodes needs a number\n\n{USAGE}");
                    return ExitCode::from(2);
                }
            },
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
    match run(options, nodes).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options, nodes: usize) -> Result<(), Error> {
    let catch = |source| Error::Io {
        what: "catch signals".to_owned(),
        source,
    };
    // From before the start on: a Ctrl-C meanwhile must not leave the cluster's directory behind.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(catch)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(catch)?;
    let serve = async {
        let (with_nodes, without);
        let cluster = if nodes > 0 {
            with_nodes = Nodes::start(NodesOptions::count(nodes)).await?;
            with_nodes.import(&image("test-app")?).await?;
            with_nodes.cluster()
        } else {
            without = LocalCluster::start(options).await?;
            &without
        };
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
