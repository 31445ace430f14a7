//! Somebody who is told of Tasks, and remembers it.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Failure, eventually, site::START};

/// A receiver's answer that never comes.
pub const HANG: u16 = 0;

/// No answer until it is another one.
pub const HOLD: u16 = 1;

/// A delivery that reached the receiver.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When.
    pub at: Timestamp,
    /// The request line and the headers.
    pub head: String,
    /// The body.
    pub body: Value,
}

/// Somebody who is told of Tasks.
pub struct Receiver {
    port: u16,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    /// What it answers.
    pub status: Arc<AtomicU16>,
}

impl Receiver {
    /// A receiver that answers `status`.
    pub async fn start(status: u16) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let receiver = Receiver {
            port: listener.local_addr()?.port(),
            arrivals: Arc::default(),
            status: Arc::new(status.into()),
        };
        let (arrivals, status) = (receiver.arrivals.clone(), receiver.status.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, arrivals.clone(), status.clone()));
            }
        });
        Ok(receiver)
    }

    /// Its URL, with user info.
    pub fn url(&self) -> String {
        format!("http://cc:s3cret@127.0.0.1:{}/done", self.port)
    }

    /// What arrived about a Task.
    pub fn about(&self, task: &str) -> Vec<Arrival> {
        let all = self.arrivals.lock().expect("no panic").clone();
        let about = |arrival: &Arrival| arrival.body["task_guid"] == task;
        all.into_iter().filter(about).collect()
    }

    /// Waits until it was told of a Task so often.
    pub async fn told(&self, task: &str, times: usize) -> Result<Vec<Arrival>, Failure> {
        let what = format!("the receiver is told of {task} {times} times");
        eventually(&what, START, || async {
            let arrivals = self.about(task);
            (arrivals.len() >= times).then_some(arrivals)
        })
        .await
    }
}

async fn receive(
    mut stream: TcpStream,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    status: Arc<AtomicU16>,
) -> Option<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            break (head.to_owned(), body);
        }
    };
    let arrival = Arrival {
        at: Timestamp::now(),
        head,
        body,
    };
    arrivals.lock().expect("no panic").push(arrival);
    while status.load(Ordering::Relaxed) == HOLD {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match status.load(Ordering::Relaxed) {
        HANG => std::future::pending().await,
        status => {
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }
    Some(())
}
