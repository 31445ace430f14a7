//! Between one controller and the API server: each request, each answer and each line of a watch waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;

use crate::frames;
use crate::gate::Gate;
use crate::shuffler::{Fate, Kind, Shuffler, Stop};
use crate::support::Failure;

/// A call has five seconds, with its answer.
const MOST: Duration = Duration::from_millis(900);

/// Serves one controller until it is dropped; then nothing of it goes any further.
pub struct Api {
    /// Where to connect.
    pub url: String,
    shared: Arc<Shared>,
    _gate: Gate,
}

struct Shared {
    client: Client,
    shuffler: Arc<Shuffler>,
    who: String,
    /// Whether its Lease is out of reach.
    cut_off: AtomicBool,
}

impl Api {
    /// In front of the server of this client, with that client's rights.
    pub async fn start(client: Client, shuffler: Arc<Shuffler>, who: &str) -> Result<Api, Failure> {
        let shared = Arc::new(Shared {
            client,
            shuffler,
            who: who.to_owned(),
            cut_off: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        let gate = Gate::open(move |stream| {
            let shared = Arc::clone(&served);
            async move {
                let service = service_fn(|request| answer(request, Arc::clone(&shared)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // It ends as the shuffler wants it to, or with its client.
                drop(connection.await);
            }
        })
        .await?;
        Ok(Api {
            url: gate.url.clone(),
            shared,
            _gate: gate,
        })
    }

    /// From now on, or not any more, its Lease is out of reach: it can't lead.
    pub fn cut_off(&self, cut_off: bool) {
        self.shared.cut_off.store(cut_off, Ordering::Relaxed);
    }
}

/// What is asked for.
struct Asked {
    kind: Kind,
    resource: String,
    text: String,
}

impl Asked {
    fn of(method: &Method, path: &str, body: &[u8]) -> Asked {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // api/v1/... or apis/group/version/...
        let skip = if parts.first() == Some(&"api") { 2 } else { 3 };
        parts.drain(..skip.min(parts.len()));
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
        }
        let mut resource = parts.first().copied().unwrap_or(path).to_owned();
        let mut name = parts[1.min(parts.len())..].join("/");
        if *method == Method::POST {
            let object: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            name = text(&object["metadata"]["name"]);
        }
        if resource == "pods" {
            name = certain(&name);
            if query.contains("labelSelector") {
                resource = "our pods".to_owned();
            }
        }
        let kind = match *method {
            Method::GET if query.contains("watch=true") => Kind::Watch,
            Method::GET => Kind::Read,
            _ => Kind::Write,
        };
        let verb = match kind {
            Kind::Watch => "watch",
            _ => method.as_str(),
        };
        Asked {
            kind,
            text: format!("{verb} {resource}/{name}"),
            resource,
        }
    }

    /// No promise is about Events, and what is asked once at the start hurries nobody.
    fn matters(&self) -> bool {
        let kinds = [
            "cells",
            "desiredlrps",
            "actuallrps",
            "tasks",
            "pods",
            "our pods",
            "nodes",
        ];
        kinds.contains(&self.resource.as_str())
    }

    fn stop(&self, who: &str, kind: Kind) -> Stop {
        let (resource, lane) = (&self.resource, lane(kind));
        let most = match kind {
            Kind::News => MOST * 2,
            _ => MOST,
        };
        let what = match kind {
            Kind::Answer => format!("answer to {}", self.text),
            _ => self.text.clone(),
        };
        Stop {
            lane: format!("{who} {lane} {resource}:"),
            what,
            kind,
            most,
        }
    }
}

fn lane(kind: Kind) -> &'static str {
    match kind {
        Kind::Write => "writes",
        Kind::Read => "reads",
        Kind::Watch => "watches",
        Kind::Call => "calls",
        Kind::Answer => "answers",
        Kind::News => "news",
    }
}

/// An error ends the connection without an answer.
async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Failure> {
    let Shared {
        client,
        shuffler,
        who,
        cut_off,
    } = &*shared;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await?;
    let asked = Asked::of(&parts.method, path, &body);
    if asked.resource == "leases" && cut_off.load(Ordering::Relaxed) {
        return Err("out of reach".into());
    }
    let mut fate = Fate::Pass;
    if asked.matters() {
        fate = shuffler.hold(asked.stop(who, asked.kind)).await;
    }
    match fate {
        Fate::Lose => return Err("lost".into()),
        Fate::Refuse(410) => return too_old(),
        Fate::Refuse(code) => return refusal(code),
        Fate::Pass | Fate::Twice => {}
    }
    let forwarded = || {
        let mut forwarded = Request::builder().method(&parts.method).uri(path);
        for name in [CONTENT_TYPE, ACCEPT] {
            if let Some(value) = parts.headers.get(&name) {
                forwarded = forwarded.header(name, value);
            }
        }
        forwarded.body(kube::client::Body::from(body.to_vec()))
    };
    let away = shuffler.away();
    let response = client.send(forwarded()?).await?;
    if fate == Fate::Twice {
        let _second = client.send(forwarded()?).await?;
    }
    let (head, body) = response.into_parts();
    let mut answer = Response::builder().status(head.status);
    if let Some(value) = head.headers.get(&CONTENT_TYPE) {
        answer = answer.header(CONTENT_TYPE, value);
    }
    if asked.kind == Kind::Watch && head.status.is_success() {
        drop(away);
        let (who, shuffler) = (who.clone(), Arc::clone(shuffler));
        let told = move |line: &[u8]| {
            let mut stop = asked.stop(&who, Kind::News);
            stop.what = news(line);
            stop
        };
        return Ok(answer.body(frames::held(body, true, shuffler, told))?);
    }
    let body = body.collect_bytes().await?;
    drop(away);
    if asked.matters() {
        let mut stop = asked.stop(who, Kind::Answer);
        stop.what = format!("{} {}", head.status.as_u16(), stop.what);
        if shuffler.hold(stop).await == Fate::Lose {
            return Err("the answer is lost".into());
        }
    }
    Ok(answer.body(Body::from(body))?)
}

/// What a line of a watch tells, without what chance decides.
fn news(line: &[u8]) -> String {
    let line: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let object = &line["object"];
    let mut name = text(&object["metadata"]["name"]);
    if object["kind"] == "Pod" || object["kind"] == "PartialObjectMetadata" {
        name = certain(&name);
    }
    let status = &object["status"];
    let state = text(&status["state"]) + &text(&status["phase"]);
    format!("{} {state} {name}", text(&line["type"]))
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The name of a Pod ends with a guid, which is by chance.
fn certain(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((name, guid)) => format!("{name}~{guid}"),
        None => name.to_owned(),
    }
}

/// As the API server says it: well, and then with an error in the stream.
fn too_old() -> Result<Response<Body>, Failure> {
    let line = serde_json::json!({ "type": "ERROR", "object": status(410, "Expired") });
    let answer = Response::builder().header(CONTENT_TYPE, "application/json");
    Ok(answer.body(Body::from(format!("{line}\n")))?)
}

fn refusal(code: u16) -> Result<Response<Body>, Failure> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let answer = Response::builder()
        .status(code)
        .header(CONTENT_TYPE, "application/json");
    Ok(answer.body(Body::from(status(code, reason).to_string()))?)
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "by the shuffler", "reason": reason, "code": code,
    })
}
