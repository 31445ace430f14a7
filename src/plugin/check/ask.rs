//! Single questions to the API server: each bounded in time, and each error in words.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use kube::api::{Api, ListParams, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::facts::{Asked, Page, Read, Server, namespace};
use crate::client::{CallError, bounded};
use crate::plugin::cluster::Cluster;
use crate::plugin::failure::Failure;

/// A list of many pages may take so long, all in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// A list is read in parts of so many objects.
const PAGE: u32 = 500;

/// A right to be asked for: what for, verb, group, resource, and whether in one namespace.
pub type Question<'a> = (
    &'static str,
    &'static str,
    &'a str,
    &'a str,
    Option<&'a str>,
);

/// Who asks.
#[derive(Clone)]
pub struct Asker {
    /// The client.
    pub client: Client,
    /// The API server's URL.
    pub server: String,
}

impl Asker {
    /// Of the same cluster.
    pub fn of(cluster: &Cluster) -> Asker {
        Asker {
            client: cluster.client.clone(),
            server: cluster.server.clone(),
        }
    }

    fn words(&self, error: &CallError) -> Failure {
        Failure::of_call(error, &self.server)
    }

    fn silent(&self) -> Failure {
        Failure::Unreachable {
            server: self.server.clone(),
            problem: format!("no answer within {PATIENCE:?}"),
        }
    }

    /// All objects.
    ///
    /// # Errors
    /// When the API server does not give them in time.
    pub async fn list<K>(&self, api: &Api<K>, params: ListParams) -> Read<Vec<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = params.limit(PAGE);
        let all = async {
            let mut all = Vec::new();
            loop {
                let page = bounded(api.list(&params)).await;
                let page = page.map_err(|error| self.words(&error))?;
                all.extend(page.items);
                params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
                if params.continue_token.is_none() {
                    return Ok(all);
                }
            }
        };
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.unwrap_or_else(|_| Err(self.silent()))
    }

    /// One object, if it is there.
    ///
    /// # Errors
    /// When the API server does not give it.
    pub async fn get<K>(&self, api: &Api<K>, name: &str) -> Read<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let object = bounded(api.get_opt(name)).await;
        object.map_err(|error| self.words(&error))
    }

    /// A text by its path.
    ///
    /// # Errors
    /// When the API server, or whoever it asks for it, does not give it.
    pub async fn text(&self, path: &str) -> Read<String> {
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|error| Failure::Refused(error.to_string()))?;
        match bounded(self.client.request_text(request)).await {
            Ok(text) => Ok(text),
            // Not the API server's own refusal of a right, but the words of whom it asked.
            Err(error) => Err(match (self.words(&error), error) {
                (right @ Failure::NoRight(_), _) => right,
                (_, CallError::Kube(kube::Error::Api(status))) => {
                    Failure::Refused(format!("{} {}", status.code, status.message.trim()))
                }
                (other, _) => other,
            }),
        }
    }

    /// The version of the API server, and its clock.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn server(&self) -> Read<Server> {
        let asked = Timestamp::now();
        let ask = async {
            let request = http::Request::get("/version").body(Body::empty());
            let request = request.map_err(|error| {
                kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error))
            })?;
            let answer = self.client.send(request).await?;
            let answered = Timestamp::now();
            let date = answer.headers().get(http::header::DATE).cloned();
            let status = answer.status();
            let body = answer.into_body().collect_bytes().await?;
            Ok((answered, date, status, body))
        };
        let (answered, date, status, body) =
            bounded(ask).await.map_err(|error| self.words(&error))?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == http::StatusCode::UNAUTHORIZED {
            return Err(Failure::Unknown {
                server: self.server.clone(),
                problem: said["message"].as_str().unwrap_or("Unauthorized").into(),
            });
        }
        let date = date.as_ref().and_then(|date| date.to_str().ok());
        let parser = rfc2822::DateTimeParser::new();
        Ok(Server {
            url: self.server.clone(),
            version: said["gitVersion"].as_str().unwrap_or_default().into(),
            date: date.and_then(|date| parser.parse_timestamp(date).ok()),
            asked,
            answered,
        })
    }

    /// Which of these rights the user has.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn rights(&self, questions: &[Question<'_>]) -> Read<Vec<Asked>> {
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let ask = |question: &Question<'_>| {
            let (purpose, verb, group, resource, namespace) = *question;
            let api = api.clone();
            let (plain, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        group: Some(group.into()),
                        resource: Some(plain.into()),
                        subresource: (!sub.is_empty()).then(|| sub.into()),
                        verb: Some(verb.into()),
                        namespace: namespace.map(Into::into),
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let resource = match group {
                "" => resource.to_owned(),
                group => format!("{resource}.{group}"),
            };
            async move {
                let answer = bounded(api.create(&PostParams::default(), &review)).await;
                let answer = answer.map_err(|error| self.words(&error))?;
                Ok(Asked {
                    purpose,
                    verb,
                    resource,
                    allowed: answer.status.is_some_and(|status| status.allowed),
                })
            }
        };
        futures::future::try_join_all(questions.iter().map(ask)).await
    }

    /// The metrics of a Pod, through the API server.
    pub async fn page(&self, pod: &Pod) -> Page {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ports = containers.flat_map(|one| {
            let args = one.args.iter().flatten();
            let tls = args
                .clone()
                .any(|arg| arg.starts_with("--metrics-tls-cert"));
            let ports = one.ports.iter().flatten();
            ports.map(move |port| (tls, port))
        });
        let found = ports.find(|(_, port)| port.name.as_deref() == Some("metrics"));
        let (tls, port) = found.map_or((false, 8080), |(tls, port)| (tls, port.container_port));
        let (name, space) = (pod.name_any(), namespace(pod));
        let scheme = if tls { "https:" } else { "" };
        let path = format!("/api/v1/namespaces/{space}/pods/{scheme}{name}:{port}/proxy/metrics");
        Page {
            text: self.text(&path).await,
            pod: name,
        }
    }
}
