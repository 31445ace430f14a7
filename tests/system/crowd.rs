//! Whoever reaches the ports of a program, and opens connections without end, uses up nothing and shuts nobody out.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use local_cluster::ServerProcess;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::certs::self_signed;
use crate::support::{Failure, eventually, http, site::START, site::Site};

/// Silent connections to each of two ports; together fewer than the files that a process may have open by default.
const SILENT: usize = 450;

/// From so many addresses.
const ADDRESSES: usize = 9;

/// What two ports may have open at once, as SECURITY.md says.
const OPEN: usize = 2 * (64 + 16);

/// Whatever else the program has open meanwhile.
const OTHERS: usize = 20;

const ANSWER: Duration = Duration::from_secs(20);

async fn silent(port: u16, which: usize) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(10 + which % ADDRESSES).unwrap_or(10);
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
    socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
}

fn open_files(process: &ServerProcess) -> Result<usize, Failure> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", process.pid()))?.count())
}

/// Resident memory in MiB.
fn memory(process: &ServerProcess) -> Result<usize, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    Ok(kib.ok_or("no VmRSS")? / 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_shut_nobody_out() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let (cert, key) = self_signed(site.dir(), "metrics")?;
    let tls = [
        format!("--metrics-tls-cert={}", cert.display()),
        format!("--metrics-tls-key={}", key.display()),
    ];
    site.spawn_rep("plain", "z1", &[]).await?;
    site.spawn_rep("secure", "z1", &[&*tls[0], &tls[1]]).await?;
    for (name, scheme) in [("plain", "http"), ("secure", "https")] {
        let rep = site.rep(name);
        let (files, before) = (open_files(&rep.process)?, memory(&rep.process)?);
        let mut held = Vec::new();
        for i in 0..SILENT {
            for port in [rep.metrics_port, rep.health_port] {
                held.push(silent(port, i).await?);
            }
        }
        let address = format!("127.0.0.1:{}", rep.health_port);
        let ready = http::get(&address, "/readyz", ANSWER).await;
        assert_eq!(ready.map(|(status, _)| status), Some(200), "{name}");
        let url = format!("{scheme}://127.0.0.1:{}/metrics", rep.metrics_port);
        let mut curl = Command::new("curl");
        let output = curl
            .args(["-sSf", "--max-time", "20", "--cacert"])
            .arg(&cert)
            .arg(url)
            .output()?;
        let page = String::from_utf8(output.stdout)?;
        assert!(
            page.contains("diego_rep_"),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Whatever waits in the listener's queue is taken in turn, and no more is open at any time.
        for _ in 0..50 {
            let now = open_files(&rep.process)?;
            assert!(
                now <= files + OPEN + OTHERS,
                "{name}: {now} files, {files} before"
            );
            tokio::task::yield_now().await;
        }
        let now = memory(&rep.process)?;
        assert!(now <= before + 24, "{name}: {now} MiB, {before} before");
        // Who says nothing is let go, though nobody needs the place.
        eventually("silent connections are ended", START, || async {
            (open_files(&rep.process).ok()? <= files + OTHERS).then_some(())
        })
        .await?;
        drop(held);
    }
    Ok(())
}
