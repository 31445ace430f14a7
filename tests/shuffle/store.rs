//! Between one controller and the presence store: each call, each answer and each piece of the watch waits for its turn.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use diego_operator::presence::etcd::PREFIX;
use http::{Request, Response};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::frames;
use crate::gate::Gate;
use crate::shuffler::{Fate, Kind, Shuffler, Stop};
use crate::support::Failure;

/// A call has one second, with its answer.
const MOST: Duration = Duration::from_millis(300);

/// Serves one controller until it is dropped; then nothing of it goes any further.
pub struct Store {
    /// Where to connect.
    pub url: String,
    _gate: Gate,
}

struct Shared {
    client: Client<HttpConnector, Body>,
    server: String,
    shuffler: Arc<Shuffler>,
    who: String,
}

impl Store {
    /// In front of this member, `http://host:port`.
    pub async fn start(server: &str, shuffler: Arc<Shuffler>, who: &str) -> Result<Store, Failure> {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let shared = Arc::new(Shared {
            client,
            server: server.to_owned(),
            shuffler,
            who: who.to_owned(),
        });
        let gate = Gate::open(move |stream| {
            let shared = Arc::clone(&shared);
            async move {
                let service = service_fn(|request| answer(request, Arc::clone(&shared)));
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                // It ends as the shuffler wants it to, or with its client.
                drop(connection.await);
            }
        })
        .await?;
        Ok(Store {
            url: gate.url.clone(),
            _gate: gate,
        })
    }
}

/// An error ends the stream without an answer.
async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Failure> {
    let Shared {
        client,
        server,
        shuffler,
        who,
    } = &*shared;
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    head.uri = format!("{server}{path}").parse()?;
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let watches = method == "Watch";
    let stop = |kind: Kind, what: String| {
        let lane = match kind {
            Kind::Answer => "answers",
            Kind::News => "news",
            Kind::Watch | Kind::Call | Kind::Read | Kind::Write => "calls",
        };
        let most = if kind == Kind::News { MOST * 3 } else { MOST };
        Stop {
            lane: format!("{who} {lane} presence:"),
            what,
            kind,
            most,
        }
    };
    if watches {
        if shuffler.hold(stop(Kind::Call, method)).await == Fate::Lose {
            return Err("lost".into());
        }
        let response = client
            .request(Request::from_parts(head, Body::new(body)))
            .await?;
        let (head, body) = response.into_parts();
        let (who, shuffler) = (who.clone(), Arc::clone(shuffler));
        let told = move |piece: &[u8]| Stop {
            lane: format!("{who} news presence:"),
            what: format!("of {}", cell_in(piece)),
            kind: Kind::News,
            most: MOST * 3,
        };
        let body = frames::held(body, false, shuffler, told);
        return Ok(Response::from_parts(head, body));
    }
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await?;
    let what = format!("{method} {}", cell_in(&body));
    if shuffler.hold(stop(Kind::Call, what.clone())).await == Fate::Lose {
        return Err("lost".into());
    }
    let away = shuffler.away();
    let response = client
        .request(Request::from_parts(head, Body::from(body)))
        .await?;
    let (head, mut body) = response.into_parts();
    let frames: Vec<Frame<_>> = frames::all(&mut body).await?;
    drop(away);
    if shuffler.hold(stop(Kind::Answer, what)).await == Fate::Lose {
        return Err("the answer is lost".into());
    }
    Ok(Response::from_parts(head, frames::ready(frames)))
}

/// The first Cell that a message is about, or nothing.
fn cell_in(message: &[u8]) -> String {
    let prefix = PREFIX.as_bytes();
    let at = message
        .windows(prefix.len())
        .position(|part| part == prefix);
    let Some(at) = at else { return String::new() };
    let name = message[at + prefix.len()..].iter();
    let letters = name.take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-');
    letters.map(|byte| char::from(*byte)).collect()
}
