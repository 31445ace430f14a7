//! Is it ready yet? The readiness probe of a process, asked from outside at the address that clients will use.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ports::Ports;
use crate::converge::process_spec::{Check, ProcessSpec, Readiness};

/// The first pause between two tries; each is twice as long as the one before, up to the probe's period.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause where the template has no probe of its own.
const DEFAULT_PERIOD: Duration = Duration::from_secs(1);

/// How long one try may take where the template has no probe of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// A status line is shorter than this.
const STATUS_LINE: usize = 64;

/// Returns once the process is ready; a process without a probe and without ports is at once.
pub async fn ready(spec: &ProcessSpec, ports: &Ports, host: &str) {
    match &spec.readiness {
        Some(readiness) => probed(readiness, ports, host).await,
        None => {
            for port in &spec.ports {
                let host_port = ports.host_port(port.container_port);
                until(FIRST_PAUSE, DEFAULT_PERIOD, 1, || {
                    within(DEFAULT_TIMEOUT, connect(host, host_port))
                })
                .await;
            }
        }
    }
}

async fn probed(readiness: &Readiness, ports: &Ports, host: &str) {
    let Readiness {
        check,
        initial_delay,
        period,
        timeout,
        successes,
    } = readiness;
    tokio::time::sleep(*initial_delay).await;
    match check {
        Check::Tcp { port } => {
            let port = ports.host_port(*port);
            until(FIRST_PAUSE, *period, *successes, || {
                within(*timeout, connect(host, port))
            })
            .await;
        }
        Check::Http {
            port,
            path,
            headers,
        } => {
            let port = ports.host_port(*port);
            let request = request(host, port, path, headers);
            until(FIRST_PAUSE, *period, *successes, || {
                within(*timeout, get(host, port, &request))
            })
            .await;
        }
    }
}

/// Tries until so many tries in a row have succeeded.
async fn until<F: Future<Output = Option<()>>>(
    first: Duration,
    longest: Duration,
    wanted: u32,
    mut attempt: impl FnMut() -> F,
) {
    let mut pause = first;
    let mut successes = 0;
    loop {
        successes = if attempt().await.is_some() {
            successes + 1
        } else {
            0
        };
        if successes >= wanted {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

async fn within(limit: Duration, attempt: impl Future<Output = Option<()>>) -> Option<()> {
    tokio::time::timeout(limit, attempt).await.ok().flatten()
}

async fn connect(host: &str, port: u16) -> Option<()> {
    TcpStream::connect((host, port)).await.ok().map(drop)
}

async fn get(host: &str, port: u16, request: &str) -> Option<()> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(STATUS_LINE);
    let mut limited = stream.take(STATUS_LINE as u64);
    while !answer.contains(&b'\n') && limited.read_buf(&mut answer).await.ok()? > 0 {}
    is_good(&String::from_utf8_lossy(&answer)).then_some(())
}

/// Whether an answer begins with a status from 200 to 399.
fn is_good(answer: &str) -> bool {
    let mut words = answer.split(' ');
    words.next().is_some_and(|word| word.starts_with("HTTP/1."))
        && words
            .next()
            .and_then(|code| code.trim_end().parse::<u16>().ok())
            .is_some_and(|code| (200..400).contains(&code))
}

fn request(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> String {
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    text.push_str("User-Agent: diego-rep\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn answers_are_judged_by_their_status() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 204\r\n", true),
            ("HTTP/1.1 302 Found\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n", false),
            ("HTTP/1.1 500 x", false),
            ("SSH-2.0 200 x", false),
            ("", false),
        ] {
            assert_eq!(is_good(answer), good, "{answer}");
        }
    }

    #[test]
    fn a_request_may_name_its_own_host() {
        let text = request("h", 80, "/up", &[("host".into(), "x".into())]);
        assert_eq!(
            text,
            "GET /up HTTP/1.1\r\nUser-Agent: diego-rep\r\nConnection: close\r\nhost: x\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn http_is_ready_once_the_status_is_good() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for answer in [
                "",
                "HTTP/1.1 503 Not yet\r\n\r\n",
                "HTTP/1.1 200 OK\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut seen = [0; 512];
                let _ = stream.read(&mut seen).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let readiness = Readiness {
            check: Check::Http {
                port,
                path: "/".into(),
                headers: vec![],
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes: 1,
        };
        let ports = Ports::default();
        let wait = probed(&readiness, &ports, "127.0.0.1");
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("ready after the third answer");
    }
}
