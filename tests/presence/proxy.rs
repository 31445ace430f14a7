//! A network between a client and its store that can be cut or frozen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Everything passes.
    Open,
    /// Everything passes so much later.
    Slow(Duration),
    /// Connections stay, nothing passes; it passes later.
    Frozen,
    /// Connections end, new ones end at once.
    Cut,
}

/// Forwards TCP connections to one address. Ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    refused: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// To an endpoint such as `http://127.0.0.1:2379`.
    pub async fn to(endpoint: &str) -> Self {
        let upstream = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mode, receiver) = watch::channel(Mode::Open);
        let refused = Arc::new(AtomicUsize::new(0));
        let taken = Arc::new(AtomicUsize::new(0));
        let counts = [Arc::clone(&refused), Arc::clone(&taken)];
        let task = tokio::spawn(serve(listener, upstream, receiver, counts));
        Self {
            address,
            mode,
            refused,
            taken,
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Whatever is sent arrives so much later, in either direction.
    pub fn slow(&self, delay: Duration) {
        self.mode.send_replace(Mode::Slow(delay));
    }

    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    pub fn open(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// How many connections there were so far that were not turned away.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many connections were turned away while cut.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    upstream: String,
    mode: watch::Receiver<Mode>,
    [refused, taken]: [Arc<AtomicUsize>; 2],
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        if *mode.borrow() == Mode::Cut {
            refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        let Ok(server) = TcpStream::connect(&upstream).await else {
            continue;
        };
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::spawn(pump(client_in, server_out, mode.clone()));
        tokio::spawn(pump(server_in, client_out, mode.clone()));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = mode.wait_for(|mode| *mode == Mode::Cut) => return,
        };
        let Ok(length @ 1..) = read else { return };
        match mode
            .wait_for(|mode| *mode != Mode::Frozen)
            .await
            .map(|mode| *mode)
        {
            Ok(Mode::Open) => {}
            Ok(Mode::Slow(delay)) => tokio::time::sleep(delay).await,
            _ => return,
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
