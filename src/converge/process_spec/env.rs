//! The environment of a template: values, references among them, and the fields a Cell can tell of an instance.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::read::{Refused, is_set};

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// A text, in which `$(VAR)` is expanded.
    Text(String),
    /// What the Cell knows of the instance.
    Field(Field),
}

/// A field of the Pod that an instance would be, as far as a process has such a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `metadata.name`: the name of its ActualLRP or Task.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// `metadata.uid`: the instance guid.
    Uid,
    /// `spec.nodeName`: the Cell's name.
    NodeName,
    /// `status.podIP`, `status.podIPs`, `status.hostIP` and `status.hostIPs`: the Cell's address, because a process
    /// has no network of its own.
    Address,
}

impl Field {
    fn named(path: &str) -> Option<Field> {
        match path {
            "metadata.name" => Some(Field::Name),
            "metadata.namespace" => Some(Field::Namespace),
            "metadata.uid" => Some(Field::Uid),
            "spec.nodeName" => Some(Field::NodeName),
            "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => {
                Some(Field::Address)
            }
            _ => None,
        }
    }
}

impl Refused {
    pub(super) fn env(
        &mut self,
        list: &[EnvVar],
        metadata: Option<&ObjectMeta>,
    ) -> Vec<(String, EnvValue)> {
        let mut env = Vec::with_capacity(list.len());
        for (i, variable) in list.iter().enumerate() {
            let EnvVar {
                name,
                value,
                value_from,
            } = variable;
            let at = format!("spec.containers[0].env[{i}]");
            if name.is_empty() || name.contains(['=', '\0']) {
                self.say(&format!("a variable of that name ({at}.name)"));
                continue;
            }
            let value = match value_from {
                None => Some(EnvValue::Text(value.clone().unwrap_or_default())),
                Some(source) => self.source(source, metadata, &at, name),
            };
            env.extend(value.map(|value| (name.clone(), value)));
        }
        env
    }

    fn source(
        &mut self,
        source: &EnvVarSource,
        metadata: Option<&ObjectMeta>,
        at: &str,
        name: &str,
    ) -> Option<EnvValue> {
        let EnvVarSource {
            config_map_key_ref,
            field_ref,
            file_key_ref,
            resource_field_ref,
            secret_key_ref,
        } = source;
        let others = is_set(config_map_key_ref)
            || is_set(file_key_ref)
            || is_set(resource_field_ref)
            || is_set(secret_key_ref);
        let Some(ObjectFieldSelector { field_path, .. }) = field_ref.as_ref().filter(|_| !others)
        else {
            self.say(&format!(
                "environment from other objects ({at}.valueFrom of {name})"
            ));
            return None;
        };
        let value = match Field::named(field_path) {
            Some(field) => Some(EnvValue::Field(field)),
            // `$$` keeps what looks like a reference as it is written: a label is not expanded.
            None => of_metadata(field_path, metadata)
                .map(|text| EnvValue::Text(text.replace('$', "$$"))),
        };
        if value.is_none() {
            self.say(&format!(
                "the field {field_path} ({at}.valueFrom.fieldRef of {name})"
            ));
        }
        value
    }
}

/// A label or annotation of the template, `metadata.labels['x']`; one that is not there is empty, as in Kubernetes.
fn of_metadata(path: &str, metadata: Option<&ObjectMeta>) -> Option<String> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    let map = match map {
        "metadata.labels" => metadata.map(|metadata| &metadata.labels),
        "metadata.annotations" => metadata.map(|metadata| &metadata.annotations),
        _ => return None,
    };
    let value = map
        .and_then(Option::as_ref)
        .and_then(|map| map.get(key).cloned());
    Some(value.unwrap_or_default())
}

/// Replaces `$(NAME)` by its value; an unknown name stays as it is written, and `$$` is a plain `$`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}
