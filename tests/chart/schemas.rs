//! The API server's own schemas, in the form that kubeconform reads: one file per kind, unknown fields forbidden.

use std::path::Path;

use local_cluster::LocalCluster;
use serde_json::{Value, json};

use crate::api_server::kubectl;
use crate::helm::{Failure, text};

/// How kubeconform finds the file of a kind.
pub const LOCATION: &str = "{{ .Group }}_{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json";

/// Writes the schemas of all kinds that the API server has, CRDs included.
pub async fn write(cluster: &LocalCluster, dir: &Path) -> Result<(), Failure> {
    let index: Value =
        serde_json::from_str(&kubectl(cluster, &["get", "--raw", "/openapi/v3"]).await?)?;
    for (path, entry) in index["paths"].as_object().ok_or("no paths")? {
        let versioned = path.starts_with("apis/") && path.split('/').count() == 3;
        if path != "api/v1" && !versioned {
            continue;
        }
        let url = text(&entry["serverRelativeURL"]);
        let mut api: Value =
            serde_json::from_str(&kubectl(cluster, &["get", "--raw", url]).await?)?;
        let schemas = &mut api["components"]["schemas"];
        forbid_unknown_fields(schemas);
        for (name, schema) in schemas.as_object().cloned().unwrap_or_default() {
            let kinds = schema["x-kubernetes-group-version-kind"]
                .as_array()
                .cloned();
            for kind in kinds.unwrap_or_default() {
                // kubeconform takes the first part of the apiVersion for the group, which the core group has not.
                let group = Some(text(&kind["group"])).filter(|group| !group.is_empty());
                let file = format!(
                    "{}_{}_{}.json",
                    group.unwrap_or(text(&kind["version"])),
                    text(&kind["kind"]).to_lowercase(),
                    text(&kind["version"])
                );
                let reference = format!("#/components/schemas/{name}");
                let schema = json!({
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "allOf": [{ "$ref": reference }],
                    "components": { "schemas": schemas },
                });
                std::fs::write(dir.join(file), schema.to_string())?;
            }
        }
    }
    Ok(())
}

fn forbid_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let closed = map.get("properties").is_some_and(Value::is_object)
                && map.get("type") == Some(&json!("object"))
                && !map.contains_key("additionalProperties")
                && map.get("x-kubernetes-preserve-unknown-fields") != Some(&json!(true));
            for value in map.values_mut() {
                forbid_unknown_fields(value);
            }
            if closed {
                map.insert("additionalProperties".into(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_unknown_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
