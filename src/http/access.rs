//! Who may read `/metrics`: the API server knows whose token it is, and whether that user may get `/metrics`.
//!
//! The same two questions that controller-runtime asks, so the same role serves: `nonResourceURLs: ["/metrics"]`, verb `get`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use crate::client::{CallError, bounded};
use crate::sync::locked;

/// How long an answer holds: a scraper comes every few seconds, and the API server shall not hear of each time. A token that
/// is taken away opens `/metrics` for so long.
const HOLDS: Duration = Duration::from_secs(60);

/// The same for a token that nobody knows: it may be so new that the API server has not heard of it yet.
const HOLDS_UNKNOWN: Duration = Duration::from_secs(10);

/// So many answers are kept. Scrapers are few; whoever tries tokens finds the oldest answers gone.
const KEPT: usize = 256;

/// Longer than any token.
const LONGEST: usize = 16 << 10;

/// Questions under way at once, and how long one may wait for its turn: whoever tries tokens must not flood the API server.
const AT_ONCE: usize = 4;
const TURN: Duration = Duration::from_secs(5);

/// So many wait for their turn; who comes then hears at once that it can't be known.
const WAITING: usize = 32;

/// What the API server says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its user may get `/metrics`.
    Allowed,
    /// Its user may not.
    Forbidden,
    /// It is nobody's.
    Unknown,
}

/// Asks the API server about tokens.
pub struct Reviewer {
    client: Client,
    /// Locked only to look or to note; never across a question.
    known: Mutex<Known>,
    slots: Semaphore,
    waiting: Semaphore,
    /// Whom a token must be meant for; the API server's own when there is none.
    audiences: Vec<String>,
}

impl Reviewer {
    /// A reviewer that asks with this client, which must be one that may write at any time. Tokens must be meant for one of
    /// the audiences; without any, for the API server.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self {
            client,
            known: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(WAITING),
            audiences,
        }
    }

    /// What to answer whoever sent these headers instead of the metrics; `None` for who may read them.
    pub async fn refusal(&self, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        let Some(token) = bearer(headers) else {
            return Some((StatusCode::UNAUTHORIZED, "a bearer token is needed\n"));
        };
        match self.judge(token).await {
            Ok(Verdict::Allowed) => None,
            Ok(Verdict::Forbidden) => Some((
                StatusCode::FORBIDDEN,
                "this user may not get the nonResourceURL /metrics\n",
            )),
            Ok(Verdict::Unknown) => Some((StatusCode::UNAUTHORIZED, "nobody has this token\n")),
            Err(error) => {
                tracing::warn!(%error, "the API server does not say who may read /metrics");
                Some((
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the API server does not say who may read this\n",
                ))
            }
        }
    }

    async fn judge(&self, token: &str) -> Result<Verdict, CallError> {
        if let Some(verdict) = locked(&self.known).get(token, Instant::now()) {
            return Ok(verdict);
        }
        let Ok(waiting) = self.waiting.try_acquire() else {
            return Err(CallError::Timeout);
        };
        let Ok(Ok(_slot)) = tokio::time::timeout(TURN, self.slots.acquire()).await else {
            return Err(CallError::Timeout);
        };
        drop(waiting);
        // The one before may have asked the same.
        if let Some(verdict) = locked(&self.known).get(token, Instant::now()) {
            return Ok(verdict);
        }
        let verdict = self.ask(token).await?;
        locked(&self.known).note(token, verdict, Instant::now());
        Ok(verdict)
    }

    async fn ask(&self, token: &str) -> Result<Verdict, CallError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: (!self.audiences.is_empty()).then(|| self.audiences.clone()),
            },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let post = PostParams::default();
        let status = bounded(api.create(&post, &review)).await?.status;
        let status = status.unwrap_or_default();
        if !is_meant(&self.audiences, status.audiences.as_deref()) {
            return Ok(Verdict::Unknown);
        }
        let (Some(true), Some(user)) = (status.authenticated, status.user) else {
            return Ok(Verdict::Unknown);
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = question(user);
        let status = bounded(api.create(&post, &review)).await?.status;
        let allowed = status.is_some_and(|status| status.allowed && status.denied != Some(true));
        Ok(if allowed {
            Verdict::Allowed
        } else {
            Verdict::Forbidden
        })
    }
}

/// Whether a token is for one of the audiences that were asked for. An authenticator that knows of none answers none, and
/// takes tokens for anybody.
fn is_meant(wanted: &[String], found: Option<&[String]>) -> bool {
    wanted.is_empty()
        || found
            .unwrap_or_default()
            .iter()
            .any(|one| wanted.contains(one))
}

/// Whether this user may get `/metrics`.
fn question(user: UserInfo) -> SubjectAccessReview {
    let UserInfo {
        extra,
        groups,
        uid,
        username,
    } = user;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            extra,
            groups,
            uid,
            user: username,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".into()),
                verb: Some("get".into()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    }
}

/// The token of the header Authorization.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let usable = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
    (usable && token.len() <= LONGEST).then_some(token)
}

/// What was answered lately.
#[derive(Default)]
struct Known(HashMap<String, (Instant, Verdict)>);

impl Known {
    fn get(&self, token: &str, now: Instant) -> Option<Verdict> {
        let (until, verdict) = self.0.get(token)?;
        (now < *until).then_some(*verdict)
    }

    fn note(&mut self, token: &str, verdict: Verdict, now: Instant) {
        let holds = match verdict {
            Verdict::Allowed | Verdict::Forbidden => HOLDS,
            Verdict::Unknown => HOLDS_UNKNOWN,
        };
        self.0.retain(|_, (until, _)| now < *until);
        if self.0.len() >= KEPT {
            let oldest = self.0.iter().min_by_key(|(_, (until, _))| *until);
            let oldest = oldest.map(|(token, _)| token.clone());
            oldest.and_then(|token| self.0.remove(&token));
        }
        self.0.insert(token.to_owned(), (now + holds, verdict));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_taken() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, long.parse().unwrap())]);
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn a_token_is_meant_for_an_audience_that_was_asked_for() {
        let of =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.into()).collect() };
        assert!(is_meant(&[], None) && is_meant(&[], Some(&of(&["api"]))));
        assert!(is_meant(&of(&["diego"]), Some(&of(&["api", "diego"]))));
        assert!(!is_meant(&of(&["diego"]), Some(&of(&["api"]))));
        assert!(
            !is_meant(&of(&["diego"]), None),
            "an authenticator that knows no audiences"
        );
    }

    #[test]
    fn answers_hold_for_a_while_and_do_not_pile_up() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.note("good", Verdict::Allowed, now);
        known.note("bad", Verdict::Unknown, now);
        assert_eq!(known.get("good", now), Some(Verdict::Allowed));
        assert_eq!(known.get("bad", now + HOLDS_UNKNOWN), None);
        assert_eq!(
            known.get("good", now + HOLDS_UNKNOWN),
            Some(Verdict::Allowed)
        );
        assert_eq!(known.get("good", now + HOLDS), None);
        for i in 0..10 * KEPT {
            known.note(&i.to_string(), Verdict::Unknown, now);
            assert!(known.0.len() <= KEPT);
        }
        // Those that somebody tries do not drive out the one that is good.
        assert_eq!(known.get("good", now), Some(Verdict::Allowed));
    }
}
