//! One try of a probe over the network: a connection, or a GET.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A status line is shorter than this.
const STATUS_LINE: usize = 64;

/// Whether a connection is accepted in time.
pub(super) async fn tcp(host: &str, port: u16, limit: Duration) -> Result<(), String> {
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(port, &error)),
        Err(_) => Err(late(port, limit)),
    }
}

/// Whether a GET is answered in time with a status from 200 to 399. Redirections are not followed.
pub(super) async fn http(
    host: &str,
    port: u16,
    path: &str,
    headers: &[(String, String)],
    limit: Duration,
) -> Result<(), String> {
    let request = request(host, port, path, headers);
    match timeout(limit, get(host, port, &request)).await {
        Ok(Ok(answer)) => judge(&answer),
        Ok(Err(error)) => Err(failed(port, &error)),
        Err(_) => Err(late(port, limit)),
    }
}

fn failed(port: u16, error: &io::Error) -> String {
    format!("port {port}: {error}")
}

fn late(port: u16, limit: Duration) -> String {
    format!("port {port}: no answer within {} s", limit.as_secs())
}

/// The first line of the answer.
async fn get(host: &str, port: u16, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(STATUS_LINE);
    let mut limited = stream.take(STATUS_LINE as u64);
    while !answer.contains(&b'\n') && limited.read_buf(&mut answer).await? > 0 {}
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(answer: &str) -> Result<(), String> {
    let mut words = answer.split_whitespace();
    let status = match words.next() {
        Some(version) if version.starts_with("HTTP/1.") => {
            words.next().and_then(|code| code.parse::<u16>().ok())
        }
        Some(_) | None => None,
    };
    match status {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("HTTP status {status}")),
        None => Err("the answer is not HTTP".into()),
    }
}

fn request(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> String {
    let has = |wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    if !has("host") {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        text.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    if !has("user-agent") {
        text.push_str("User-Agent: diego-rep\r\n");
    }
    text.push_str("Connection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_status() {
        for (answer, verdict) in [
            ("HTTP/1.1 200 OK\r\n", Ok(())),
            ("HTTP/1.0 204\r\n", Ok(())),
            ("HTTP/1.1 302 Found\r\n", Ok(())),
            ("HTTP/1.1 199 x\r\n", Err("HTTP status 199")),
            ("HTTP/1.1 400 Bad Request\r\n", Err("HTTP status 400")),
            ("HTTP/1.1 500 x", Err("HTTP status 500")),
            ("SSH-2.0 200 x", Err("the answer is not HTTP")),
            ("", Err("the answer is not HTTP")),
        ] {
            assert_eq!(judge(answer), verdict.map_err(String::from), "{answer}");
        }
    }

    #[test]
    fn a_request_may_name_its_own_host() {
        let text = request("h", 80, "/up", &[("host".into(), "x".into())]);
        assert_eq!(
            text,
            "GET /up HTTP/1.1\r\nUser-Agent: diego-rep\r\nConnection: close\r\nhost: x\r\n\r\n"
        );
        let text = request("::1", 80, "/", &[("User-Agent".into(), "x".into())]);
        assert_eq!(
            text,
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\nUser-Agent: x\r\n\r\n"
        );
    }
}
