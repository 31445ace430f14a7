//! Between a program and the API server: sees each request, and may delay it, refuse it, lose it or its answer, answer with
//! an old list, or end the program that sent it.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Failure, eventually, site::START};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How.
    pub method: Method,
    /// For what, with the query.
    pub path: String,
}

impl Asked {
    /// Whether it changes a record of ours: Leases and Events are no part of any promise.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && self.path.contains("/apis/diego.cloudfoundry.org/")
    }

    /// For what, without the query.
    pub fn resource(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether it is a watch.
    pub fn is_watch(&self) -> bool {
        self.method == Method::GET && self.path.contains("watch=true")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It is answered as ever.
    Pass,
    /// It reaches the server so much later.
    Delay(Duration),
    /// It does not reach the server: this status answers it, with `Retry-After` in seconds.
    Refuse(u16, Option<u32>),
    /// It does not reach the server, and the connection ends.
    Lose,
    /// The server does what is asked, and the connection ends without an answer. So does every watch before that, as when
    /// the server dies: it can't tell of it either.
    LoseAnswer,
    /// The server does what is asked, and then this process dies of SIGKILL.
    Kill(u32),
    /// A watch is told that what it wants to begin with is too old, as after a compaction.
    Expire,
    /// A list is answered as it was the first time; watches are too old, and after that list silent.
    Old,
}

type Rule = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;

/// Answers on a loopback port, by what the API server says. Ends when dropped.
pub struct Between {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    rule: Mutex<Rule>,
    /// The first answer to each list.
    lists: Mutex<HashMap<String, Bytes>>,
    /// The lists that were given again.
    repeated: Mutex<HashSet<String>>,
    /// Ends every connection when it changes.
    cut: tokio::sync::watch::Sender<()>,
    /// Ends every watch when it changes.
    watches: tokio::sync::watch::Sender<()>,
}

impl Between {
    /// In front of the server of this client, with that client's rights.
    pub async fn start(client: Client) -> Result<Between, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            client,
            rule: Mutex::new(Arc::new(|_| Act::Pass)),
            lists: Mutex::default(),
            repeated: Mutex::default(),
            cut: tokio::sync::watch::Sender::new(()),
            watches: tokio::sync::watch::Sender::new(()),
        });
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&shared);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Ok(Between {
            address,
            shared,
            _tasks: tasks,
        })
    }

    /// From now on this says what becomes of each request.
    pub fn rule(&self, rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *self.shared.rule.lock().expect("not poisoned") = Arc::new(rule);
    }

    /// The next answer to each list is the one that [`Act::Old`] repeats. Returns when each of these was given.
    pub async fn remember(&self, plurals: &[&str]) -> Result<(), Failure> {
        self.shared.lists.lock().expect("not poisoned").clear();
        self.shared.repeated.lock().expect("not poisoned").clear();
        self.relist();
        eventually("every list is read again", START, || async {
            let lists = self.shared.lists.lock().expect("not poisoned");
            let read = |plural: &&str| lists.keys().any(|path| path.ends_with(*plural));
            plurals.iter().all(read).then_some(())
        })
        .await?;
        self.rule(|_| Act::Pass);
        Ok(())
    }

    /// Every watch ends as one that is too old, so that everything is listed anew; for as long as the rule stays.
    pub fn relist(&self) {
        self.rule(|asked| match asked.is_watch() {
            true => Act::Expire,
            false => Act::Pass,
        });
        self.cut();
    }

    /// From now on each write of a record is counted, and nothing is done to it.
    pub fn count_writes(&self) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        self.rule(move |asked| {
            if asked.is_write() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Act::Pass
        });
        count
    }

    /// Ends every connection; new ones are taken.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self, file: PathBuf) -> Result<String, Failure> {
        Self::kubeconfig_to(&self.url(), file)
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig that leads to this URL, which leads here.
    pub fn kubeconfig_to(url: &str, file: PathBuf) -> Result<String, Failure> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
             clusters: [{{name: here, cluster: {{server: '{url}'}}}}]\n\
             users: [{{name: here, user: {{}}}}]\n\
             contexts: [{{name: here, context: {{cluster: here, user: here}}}}]\n"
        );
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // It ends as the rule wants it to, or with its client.
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

/// An error ends the connection without an answer.
async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let asked = Asked {
        method: parts.method.clone(),
        path: path.to_owned(),
    };
    let rule = Arc::clone(&shared.rule.lock().expect("not poisoned"));
    let act = rule(&asked);
    match &act {
        Act::Delay(pause) => tokio::time::sleep(*pause).await,
        Act::Refuse(code, after) => return refusal(*code, *after),
        Act::Lose => return Err("lost".into()),
        Act::Expire => return expired(),
        Act::Old if asked.is_watch() => {
            // Too old, until the old list was given: then it is silent.
            let repeated = shared.repeated.lock().expect("not poisoned");
            if !repeated.contains(&key(&asked)) {
                return expired();
            }
            let silence = stream::pending::<Result<Bytes, Infallible>>();
            return Ok(Response::new(Body::from_stream(silence)));
        }
        Act::Old => {
            let lists = shared.lists.lock().expect("not poisoned");
            if let Some(list) = lists
                .get(&key(&asked))
                .filter(|_| asked.method == Method::GET)
            {
                let mut repeated = shared.repeated.lock().expect("not poisoned");
                repeated.insert(key(&asked));
                let answer = Response::builder().header(CONTENT_TYPE, "application/json");
                return Ok(answer.body(Body::from(list.clone()))?);
            }
        }
        Act::LoseAnswer => {
            shared.watches.send_replace(());
        }
        Act::Pass | Act::Kill(_) => {}
    }
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await?;
    let mut forwarded = Request::builder().method(&asked.method).uri(&asked.path);
    for name in [CONTENT_TYPE, ACCEPT] {
        if let Some(value) = parts.headers.get(&name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let forwarded = forwarded.body(kube::client::Body::from(body.to_vec()))?;
    let response = shared.client.send(forwarded).await?;
    let (parts, body) = response.into_parts();
    let mut answer = Response::builder().status(parts.status);
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = parts.headers.get(&name) {
            answer = answer.header(name, value);
        }
    }
    match act {
        Act::LoseAnswer => Err("the answer is lost".into()),
        Act::Kill(pid) => {
            // It may have died by itself.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            Err("the program is dead".into())
        }
        _ if asked.is_watch() => {
            let mut watches = shared.watches.subscribe();
            let ends = async move { watches.changed().await.is_ok() };
            let events = Body::new(body).into_data_stream().take_until(ends);
            Ok(answer.body(Body::from_stream(events))?)
        }
        _ => {
            let body = body.collect_bytes().await?;
            if asked.method == Method::GET && parts.status.is_success() {
                let mut lists = shared.lists.lock().expect("not poisoned");
                lists.entry(key(&asked)).or_insert_with(|| body.clone());
            }
            Ok(answer.body(Body::from(body))?)
        }
    }
}

/// A list, whatever page or version of it is asked for.
fn key(asked: &Asked) -> String {
    asked.resource().to_owned()
}

/// As the API server says it: well, and then with an error in the stream.
fn expired() -> Result<Response<Body>, Failure> {
    let object = status(410, "Expired");
    let line = serde_json::json!({ "type": "ERROR", "object": object });
    let answer = Response::builder().header(CONTENT_TYPE, "application/json");
    Ok(answer.body(Body::from(format!("{line}\n")))?)
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "by the proxy", "reason": reason, "code": code,
    })
}

fn refusal(code: u16, after: Option<u32>) -> Result<Response<Body>, Failure> {
    let mut answer = Response::builder()
        .status(code)
        .header(CONTENT_TYPE, "application/json");
    if let Some(seconds) = after {
        answer = answer.header(RETRY_AFTER, seconds);
    }
    let reason = match code {
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "ServiceUnavailable",
    };
    let status = status(code, reason);
    Ok(answer.body(Body::from(status.to_string()))?)
}
