//! Whoever connects and says nothing, or too little, is let go; who asks is answered.

use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

/// Within this a machine that is busy does what it does at once.
const SOON: Duration = Duration::from_secs(20);

const SMALL: Limits = Limits {
    connections: Caps {
        per_peer: 4,
        all: 8,
    },
    handshake: Duration::from_millis(300),
    request: Duration::from_millis(300),
    life: Duration::from_secs(300),
};

const LONG: Duration = Duration::from_secs(600);

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

async fn serving(limits: Limits) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, stop) = (listener.local_addr().expect("it"), CancellationToken::new());
    let app = Router::new().route("/a", get(|| async { "answered" }));
    tokio::spawn(serve(listener, None, app, limits, stop.clone()));
    (address, stop)
}

/// A connection from 127.0.0.`last`.
async fn connect(to: SocketAddr, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(from).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

/// Waits until the other side has closed.
async fn closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    // A reset is an end, too.
    assert!(closed.is_ok(), "it is still open");
}

async fn is_answered(stream: &mut TcpStream) {
    stream.write_all(ASK).await.expect("asked");
    let mut text = Vec::new();
    while !text.ends_with(b"answered") {
        let read = stream.read_buf(&mut text);
        let read = tokio::time::timeout(SOON, read).await.expect("in time");
        assert!(read.expect("an answer") > 0, "closed after {text:?}");
    }
}

#[tokio::test]
async fn who_does_not_ask_is_let_go() {
    let (address, _stop) = serving(SMALL).await;
    let mut silent = connect(address, 1).await;
    closes(&mut silent).await;
    let mut half = connect(address, 1).await;
    half.write_all(b"GET /a HT").await.expect("sent");
    closes(&mut half).await;
    let mut idle = connect(address, 1).await;
    is_answered(&mut idle).await;
    closes(&mut idle).await;
    // A byte now and then does not keep it open.
    let (mut reads, mut writes) = connect(address, 1).await.into_split();
    let drip = tokio::spawn(async move {
        while writes.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(SOON, reads.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it is still open");
    drip.abort();
}

#[tokio::test]
async fn a_connection_serves_many_requests_but_not_for_ever() {
    let life = Duration::from_millis(500);
    let (address, _stop) = serving(Limits {
        life,
        request: LONG,
        ..SMALL
    })
    .await;
    let (began, mut stream) = (Instant::now(), connect(address, 1).await);
    is_answered(&mut stream).await;
    is_answered(&mut stream).await;
    closes(&mut stream).await;
    assert!(began.elapsed() >= life);
}

#[tokio::test]
async fn who_opens_many_shuts_nobody_out() {
    let limits = Limits {
        request: LONG,
        handshake: LONG,
        ..SMALL
    };
    let (address, _stop) = serving(limits).await;
    let mut other = connect(address, 2).await;
    is_answered(&mut other).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(connect(address, 1).await);
    }
    // From the same address, too.
    is_answered(&mut connect(address, 1).await).await;
    let oldest = &mut silent[..50 - limits.connections.per_peer];
    for stream in oldest {
        closes(stream).await;
    }
    is_answered(&mut other).await;
    // By many addresses an old one loses its place, and gets another one at once.
    let mut many = Vec::new();
    for last in 3..50 {
        many.push(connect(address, last).await);
    }
    closes(&mut other).await;
    is_answered(&mut connect(address, 2).await).await;
}

#[tokio::test]
async fn it_ends_when_it_is_asked_to() {
    let limits = Limits {
        request: LONG,
        ..SMALL
    };
    let (address, stop) = serving(limits).await;
    let mut idle = connect(address, 1).await;
    is_answered(&mut idle).await;
    stop.cancel();
    closes(&mut idle).await;
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, refused)
        .await
        .expect("the port is free");
}
