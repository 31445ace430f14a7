//! A network between a program and a server, each direction of which can hold back or lose what is sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::Failure;

/// What becomes of what is sent in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives.
    Open,
    /// It is lost, and the connection stays: as where packets are dropped.
    Lost,
    /// The connection ends, and there is no new one.
    Cut,
}

/// Forwards connections to one address. Ends when dropped.
pub struct Network {
    address: SocketAddr,
    /// To the server.
    there: watch::Sender<Way>,
    /// From the server.
    back: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Network {
    /// To an endpoint such as `http://127.0.0.1:2379`.
    pub async fn to(endpoint: &str) -> Result<Network, Failure> {
        Network::to_from(endpoint, Ipv4Addr::LOCALHOST).await
    }

    /// The same, found at this address.
    pub async fn to_from(endpoint: &str, at: Ipv4Addr) -> Result<Network, Failure> {
        let (_, server) = endpoint.split_once("://").ok_or("an endpoint is a URL")?;
        let listener = TcpListener::bind((at, 0)).await?;
        let address = listener.local_addr()?;
        let (there, back) = (watch::Sender::new(Way::Open), watch::Sender::new(Way::Open));
        let ways = [there.subscribe(), back.subscribe()];
        let task = tokio::spawn(serve(listener, server.to_owned(), ways));
        Ok(Network {
            address,
            there,
            back,
            task,
        })
    }

    /// Where to connect, as a URL of the scheme.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Both directions.
    pub fn set(&self, way: Way) {
        self.set_each(way, way);
    }

    /// To the server, and from it. What was lost leaves a connection of no use: those that were open while it was
    /// lost end when it is mended.
    pub fn set_each(&self, there: Way, back: Way) {
        let mends =
            |sender: &watch::Sender<Way>, to| *sender.borrow() == Way::Lost && to == Way::Open;
        if mends(&self.there, there) || mends(&self.back, back) {
            self.there.send_replace(Way::Cut);
            self.back.send_replace(Way::Cut);
        }
        self.there.send_replace(there);
        self.back.send_replace(back);
    }

    /// A kubeconfig that leads through here.
    pub fn kubeconfig(&self, of: &Path, server: &str, to: PathBuf) -> Result<PathBuf, Failure> {
        let text = std::fs::read_to_string(of)?;
        if !text.contains(server) {
            return Err(format!("{server} is not in {}", of.display()).into());
        }
        let host = server.rsplit(['/', ':']).nth(1).unwrap_or_default();
        // Its certificate does not name where it is found here.
        let here = format!("{}\n    tls-server-name: {host}", self.url("https"));
        std::fs::write(&to, text.replace(server, &here))?;
        Ok(to)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.there.send_replace(Way::Cut);
        self.back.send_replace(Way::Cut);
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, server: String, ways: [watch::Receiver<Way>; 2]) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let [mut there, mut back] = ways.clone();
        // A change before this connection is none to it.
        if *there.borrow_and_update() == Way::Cut || *back.borrow_and_update() == Way::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&server).await else {
            continue;
        };
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::spawn(pump(client_in, server_out, there));
        tokio::spawn(pump(server_in, client_out, back));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 16 << 10];
    let mut lost = false;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = way.changed() => {
                let now = *way.borrow_and_update();
                // Bytes are missing in the middle: nothing more may follow them.
                if changed.is_err() || now == Way::Cut || (lost && now == Way::Open) {
                    return;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else { return };
        let now = *way.borrow();
        match now {
            Way::Cut => return,
            Way::Lost => lost = true,
            Way::Open if lost => return,
            Way::Open => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
