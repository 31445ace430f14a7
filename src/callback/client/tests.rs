//! Deliveries to real servers that behave well, badly and not at all.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::callback::HostEntry;

const TIMEOUT: Duration = Duration::from_millis(300);
const BODY: &[u8] = br#"{"task_guid":"t"}"#;

/// What a receiver does with its n-th request, after it has read it.
#[derive(Clone, Copy)]
enum Reply {
    Status(u16),
    Redirect(u16),
    Hang,
    /// One byte of the head every few milliseconds, for ever.
    Drip,
    /// A head, and then as much as anybody reads.
    Flood,
    Close,
}

/// A receiver on loopback, and what it was sent.
struct Receiver {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    flooded: Arc<Mutex<u64>>,
}

impl Receiver {
    /// The last reply is given to all requests that follow.
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let flooded = Arc::<Mutex<u64>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let accepted = connections.clone();
        let (seen, sent, replies) = (requests.clone(), flooded.clone(), replies.to_vec());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (seen, sent, replies) = (seen.clone(), sent.clone(), replies.clone());
                tokio::spawn(serve(stream, seen, sent, replies));
            }
        });
        Receiver {
            port,
            requests,
            connections,
            flooded,
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/done?x=1", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<u64>>,
    replies: Vec<Reply>,
) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(BODY) {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&part[..read]);
    }
    let number = {
        let mut seen = seen.lock().expect("no panic");
        seen.push(String::from_utf8_lossy(&request).into_owned());
        seen.len()
    };
    match replies[(number - 1).min(replies.len() - 1)] {
        Reply::Status(status) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
        }
        Reply::Redirect(port) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.ok()?;
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.ok()?;
            loop {
                stream.write_all(b"y").await.ok()?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Reply::Flood => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
            stream.write_all(head).await.ok()?;
            let part = vec![b'x'; 1 << 16];
            for _ in 0..(1 << 14) {
                stream.write_all(&part).await.ok()?;
                *sent.lock().expect("no panic") += part.len() as u64;
            }
        }
        Reply::Close => {}
    }
    Some(())
}

fn courier(allowed: &[&str]) -> Courier {
    let entries = allowed.iter().map(|text| text.parse::<HostEntry>());
    let entries = entries.collect::<Result<_, _>>().expect("entries");
    Courier::new(HostPolicy::new(entries), TIMEOUT)
}

async fn deliver(replies: &[Reply]) -> (Delivery, Vec<String>) {
    let receiver = Receiver::start(replies).await;
    let delivery = courier(&["127.0.0.1"]).deliver(&receiver.url(), BODY).await;
    (delivery, receiver.requests())
}

fn answered(status: u16) -> Delivery {
    Delivery::Settled(Settlement::Answered { status })
}

fn unanswered(delivery: &Delivery) -> &str {
    match delivery {
        Delivery::Unanswered(problem) => problem,
        Delivery::Settled(how) => panic!("{how:?}"),
    }
}

#[tokio::test]
async fn any_answer_but_503_and_504_settles_it_with_one_request() {
    for status in [200, 201, 204, 301, 400, 401, 404, 429, 500, 501, 502] {
        let (delivery, requests) = deliver(&[Reply::Status(status)]).await;
        assert_eq!(delivery, answered(status));
        assert_eq!(requests.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn it_is_a_post_of_json() {
    let (_, requests) = deliver(&[Reply::Status(200)]).await;
    let request = requests[0].to_ascii_lowercase();
    assert!(
        request.starts_with("post /done?x=1 http/1.1\r\n"),
        "{request}"
    );
    for line in [
        "content-type: application/json",
        "content-length: 17",
        "host: 127.0.0.1",
    ] {
        assert!(request.contains(line), "{line} is missing in {request}");
    }
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn unavailable_receivers_are_tried_three_times_in_all() {
    for status in [503, 504] {
        let (delivery, requests) = deliver(&[Reply::Status(status)]).await;
        assert_eq!(unanswered(&delivery), format!("it answered {status}"));
        assert_eq!(requests.len(), 3);
    }
    let replies = [Reply::Status(503), Reply::Status(504), Reply::Status(200)];
    let (delivery, requests) = deliver(&replies).await;
    assert_eq!((delivery, requests.len()), (answered(200), 3));
    let (delivery, requests) = deliver(&[Reply::Hang, Reply::Status(204)]).await;
    assert_eq!((delivery, requests.len()), (answered(204), 2));
    let (delivery, requests) = deliver(&[Reply::Close, Reply::Status(500)]).await;
    assert_eq!((delivery, requests.len()), (answered(500), 2));
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_three_time_outs() {
    for reply in [Reply::Hang, Reply::Drip] {
        let began = Instant::now();
        let (delivery, requests) = deliver(&[reply]).await;
        assert_eq!(unanswered(&delivery), "no answer within 300ms");
        assert_eq!(requests.len(), 3);
        let longest = Courier::longest(TIMEOUT);
        assert!(began.elapsed() < longest + Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_gigabyte_of_answer_costs_nothing() {
    let receiver = Receiver::start(&[Reply::Flood]).await;
    let delivery = courier(&["127.0.0.1"]).deliver(&receiver.url(), BODY).await;
    assert_eq!(delivery, answered(200));
    // Nobody reads on: once the connection is closed the receiver sends no more.
    let flooded = || *receiver.flooded.lock().expect("no panic");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = flooded();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if flooded() == before {
            break;
        }
        assert!(Instant::now() < deadline, "it is still being read");
    }
    assert!(flooded() < 64 << 20, "{} bytes were taken", flooded());
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let other = Receiver::start(&[Reply::Status(200)]).await;
    let (delivery, requests) = deliver(&[Reply::Redirect(other.port)]).await;
    assert_eq!((delivery, requests.len()), (answered(302), 1));
    assert!(other.requests().is_empty(), "nobody follows it");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let began = Instant::now();
    let delivery = courier(&["127.0.0.1"])
        .deliver(&format!("http://cc:s3cret@{address}/"), BODY)
        .await;
    let problem = unanswered(&delivery);
    assert!(
        problem.contains("refused") && !problem.contains("s3cret"),
        "{problem}"
    );
    assert!(began.elapsed() >= PAUSE * 3, "with its two pauses");
}

#[tokio::test]
async fn a_receiver_without_tls_is_no_https_receiver() {
    let receiver = Receiver::start(&[Reply::Status(200)]).await;
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    let delivery = courier(&["127.0.0.1"]).deliver(&url, BODY).await;
    unanswered(&delivery);
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn user_info_is_sent_as_basic_authentication() {
    let receiver = Receiver::start(&[Reply::Status(200)]).await;
    let url = format!("http://cc:s%40cret@127.0.0.1:{}/", receiver.port);
    let delivery = courier(&["127.0.0.1"]).deliver(&url, BODY).await;
    assert_eq!(delivery, answered(200));
    let request = receiver.requests()[0].clone();
    assert!(
        request.contains("authorization: Basic Y2M6c0BjcmV0\r\n"),
        "{request}"
    );
    assert!(!request.contains("s%40cret"), "{request}");
}

#[tokio::test]
async fn what_is_not_allowed_is_never_connected_to() {
    let receiver = Receiver::start(&[Reply::Status(200)]).await;
    let port = receiver.port;
    for (list, base, words) in [
        (&[][..], "http://127.0.0.1", "loopback"),
        (&[], "http://[::ffff:127.0.0.1]", "loopback"),
        (&[], "http://localhost", "loopback"),
        (&[], "http://2130706433", "loopback"),
        (&[], "http://0x7f.1", "loopback"),
        (&[], "http://0.0.0.0", "unspecified"),
        (&["localhost"], "http://localhost", "loopback"),
        (&["cc.example.com"], "http://127.0.0.1", "is not in"),
        (&["cc.example.com"], "http://localhost", "is not in"),
        (&["10.0.0.0/8"], "http://localhost", "is not in"),
        (&[], "https://127.0.0.1", "loopback"),
        (&[], "https://localhost", "loopback"),
        (&["localhost"], "https://localhost", "loopback"),
        (&["10.0.0.0/8"], "https://localhost", "is not in"),
    ] {
        let delivery = courier(list)
            .deliver(&format!("{base}:{port}/"), BODY)
            .await;
        let Delivery::Settled(Settlement::HostNotAllowed { problem }) = &delivery else {
            panic!("{list:?} {base}: {delivery:?}")
        };
        assert!(problem.contains(words), "{list:?} {base}: {problem}");
    }
    assert_eq!(receiver.connections(), 0);
    // An address that is allowed opens it for the name too: only what was checked is connected to.
    let url = format!("http://localhost:{port}/");
    assert_eq!(
        courier(&["127.0.0.1"]).deliver(&url, BODY).await,
        answered(200)
    );
}

#[tokio::test]
async fn a_url_that_can_not_be_sent_to_is_settled() {
    for url in ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/"] {
        let delivery = courier(&["127.0.0.1"]).deliver(url, BODY).await;
        assert!(
            matches!(delivery, Delivery::Settled(Settlement::InvalidUrl { .. })),
            "{url}: {delivery:?}"
        );
    }
}

#[test]
fn of_a_hosts_addresses_the_allowed_ones_are_left() {
    let policy = HostPolicy::default();
    let addresses = |list: &[&str]| -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().expect(text)).collect()
    };
    let some = addresses(&["127.0.0.1", "10.0.0.1", "fe80::1"]);
    let left = allowed(&policy, "h", some.into_iter());
    assert_eq!(left, Ok(addresses(&["10.0.0.1"])));
    let none = addresses(&["127.0.0.1", "fe80::1"]);
    assert!(allowed(&policy, "h", none.into_iter()).is_err());
    assert_eq!(allowed(&policy, "h", std::iter::empty()), Ok(Vec::new()));
}
