//! What passes the gate, and when.

use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Response};
use tower::{ServiceExt, service_fn};

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What came through, and a service that answers after `takes`.
type Sent = Arc<Mutex<Vec<Method>>>;

async fn send(gate: &Gate, method: Method, takes: Duration, sent: &Sent) -> Result<(), BoxError> {
    let sent = sent.clone();
    let inner = service_fn(move |request: Request<Body>| {
        let sent = sent.clone();
        async move {
            sent.lock().unwrap().push(request.method().clone());
            tokio::time::sleep(takes).await;
            Ok::<_, BoxError>(Response::new(()))
        }
    });
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    gate.layer(inner).oneshot(request).await.map(drop)
}

fn refusal(result: Result<(), BoxError>) -> Option<Refused> {
    result.err()?.downcast_ref().copied()
}

#[tokio::test]
async fn reads_pass_always_and_writes_only_while_it_is_open() {
    let past = Instant::now();
    type Prepare = fn(&Gate);
    let gates: [(&str, Gate, Prepare, bool); 5] = [
        ("always", Gate::always_open(), |_| {}, true),
        ("shut", Gate::new_shut(), |_| {}, false),
        (
            "open",
            Gate::new_shut(),
            |gate| gate.open_until(Instant::now() + LONG),
            true,
        ),
        (
            "shut again",
            Gate::new_shut(),
            |gate| {
                gate.open_until(Instant::now() + LONG);
                gate.shut();
            },
            false,
        ),
        ("frozen past its deadline", Gate::new_shut(), |_| {}, false),
    ];
    gates[4].1.open_until(past);
    for (name, gate, prepare, open) in gates {
        prepare(&gate);
        let sent = Sent::default();
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ] {
            let reads = method == Method::GET;
            let result = send(&gate, method.clone(), Duration::ZERO, &sent).await;
            let expected = (!reads && !open).then_some(Refused::NotSent);
            assert_eq!(refusal(result), expected, "{name}: {method}");
        }
        let count = sent.lock().unwrap().len();
        assert_eq!(count, if open { 5 } else { 1 }, "{name}: what is sent");
    }
}

#[tokio::test]
async fn a_write_under_way_is_cut_off_when_it_shuts_and_not_when_its_end_moves() {
    let gate = Gate::new_shut();
    gate.open_until(Instant::now() + Duration::from_millis(50));
    let sent = Sent::default();
    let began = Instant::now();
    let result = send(&gate, Method::PATCH, LONG, &sent).await;
    assert_eq!(refusal(result), Some(Refused::CutOff));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());

    gate.open_until(Instant::now() + Duration::from_millis(50));
    let renew = async {
        gate.open_until(Instant::now() + LONG);
        Ok::<_, BoxError>(())
    };
    let write = send(&gate, Method::PATCH, Duration::from_millis(150), &sent);
    let both = tokio::try_join!(write, renew);
    assert!(both.is_ok(), "{both:?}");

    let shut = async {
        tokio::task::yield_now().await;
        gate.shut();
    };
    let (result, ()) = tokio::join!(send(&gate, Method::POST, LONG, &sent), shut);
    assert_eq!(refusal(result), Some(Refused::CutOff));
}

/// A server that has nothing, and what it was asked.
async fn server() -> (kube::Config, Sent) {
    let sent = Sent::default();
    let heard = sent.clone();
    let answer = move |method: Method| {
        heard.lock().unwrap().push(method);
        let status = r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404}"#;
        std::future::ready((http::StatusCode::NOT_FOUND, status))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (kube::Config::new(url.parse().unwrap()), sent)
}

#[tokio::test]
async fn a_client_behind_it_sends_no_write_and_says_so() {
    let (config, sent) = server().await;
    let metrics = crate::metrics::ClientMetrics::new(&mut Default::default());
    let gate = Gate::new_shut();
    let client = crate::client::build_gated(&config, &metrics, &gate).unwrap();
    let api = kube::Api::<crate::api::Task>::namespaced(client, "default");
    let params = kube::api::DeleteParams::default();
    let found = crate::client::bounded(api.get_opt("x")).await;
    assert_eq!(found.unwrap(), None);
    let refused = crate::client::bounded(api.delete("x", &params)).await;
    let refused = refused.expect_err("it is shut");
    assert!(refused.is_not_sent(), "{refused:?}");
    assert_eq!(refused.outcome(), "not_leading");
    gate.open_until(Instant::now() + LONG);
    let answered = crate::client::bounded(api.delete("x", &params)).await;
    let answered = answered.expect_err("there is nothing");
    assert!(answered.is_not_found() && !answered.is_not_sent());
    assert_eq!(*sent.lock().unwrap(), [Method::GET, Method::DELETE]);
}
