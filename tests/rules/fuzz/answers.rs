//! What a receiver of callbacks answers: it can say anything, and the delivery ends in time.

use std::time::{Duration, Instant};

use diego_operator::callback::{Courier, Delivery, HostPolicy};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::bend;

const TIMEOUT: Duration = Duration::from_millis(500);

/// So many deliveries at once.
const BATCH: usize = 64;

const ANSWERS: [&str; 6] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 99999999999999999999\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "HTTP/1.0 999 \r\n\r\n",
];

/// A receiver that reads a little and then says this.
async fn receiver(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn any_answer_ends_a_delivery_in_time() {
    let seeds = ANSWERS.iter().map(|answer| answer.as_bytes().to_vec());
    let (strategy, mut runner) = (
        bend::bytes(seeds.collect()),
        TestRunner::new(super::config()),
    );
    let loopback = "127.0.0.1".parse().expect("an entry");
    let courier = Courier::new(HostPolicy::new(vec![loopback]), TIMEOUT);
    let batches = (super::config().cases as usize / 8).div_ceil(BATCH);
    let mut settled = 0;
    for _ in 0..batches {
        let deliveries = (0..BATCH).map(|_| {
            let answer = strategy.new_tree(&mut runner).expect("an answer").current();
            let courier = courier.clone();
            tokio::spawn(async move {
                let port = receiver(answer.clone()).await;
                let began = Instant::now();
                let url = format!("http://127.0.0.1:{port}/");
                let delivery = courier.deliver(&url, b"{}").await;
                let longest = Courier::longest(TIMEOUT) + super::BOUND;
                assert!(
                    began.elapsed() < longest,
                    "{answer:?}: {:?}",
                    began.elapsed()
                );
                delivery
            })
        });
        for delivery in futures::future::join_all(deliveries).await {
            let delivery = delivery.expect("no panic");
            settled += usize::from(matches!(delivery, Delivery::Settled(_)));
        }
    }
    assert!(settled > 0, "no answer was understood");
}
