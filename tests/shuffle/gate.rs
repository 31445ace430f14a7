//! What both proxies are: a port that serves connections until it is dropped.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::Failure;

/// Serves until it is dropped; then all its connections end.
pub struct Gate {
    /// Where to connect.
    pub url: String,
    _open: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// On a free port; `serve` has one connection until that ends with its client.
    pub async fn open<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Gate, Failure>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let open = watch::Sender::new(());
        let closed = open.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (connection, mut closed) = (serve(stream), closed.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        _ = closed.changed() => {}
                    }
                });
            }
        });
        Ok(Gate {
            url,
            _open: open,
            _tasks: tasks,
        })
    }
}
