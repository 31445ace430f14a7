//! Schemas that the types alone can't express: conditions, names, tags and the schema-free template.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `status.conditions`: a list-map keyed by type with the bounds of the Kubernetes API conventions.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "The latest observations of this object's state, one per type.",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "minLength": 1,
                    "description": "What is observed, in CamelCase." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds: True, False or Unknown." },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation this condition was derived from." },
                "lastTransitionTime": { "type": "string", "format": "date-time",
                    "description": "When the status of this condition last changed." },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why the condition has this status: one CamelCase word for programs." },
                "message": { "type": "string", "maxLength": 32768,
                    "description": "The same for people, with the remedy where there is one." }
            }
        }
    })
}

/// A set of placement tags.
pub fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "minLength": 1, "maxLength": 63 }
    })
}

/// Names of the Cells that gave a piece of work back.
pub fn rejected_by(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 3,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "maxLength": 63 }
    })
}

/// A Kubernetes quantity in bytes.
pub fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 32,
        "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]+|E[0-9]+)?$"
    })
}

/// A pod template whose content the API server keeps and does not judge.
///
/// Its two members have no `type` on purpose: CEL compares an untyped preserved value as a whole, so that
/// `self == oldSelf` sees every change, while below a typed one it overlooks a renamed key.
pub fn template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "metadata": {
                "description": "Labels and annotations of the container, as in core/v1 PodTemplateSpec.",
                "x-kubernetes-preserve-unknown-fields": true
            },
            "spec": {
                "description": "What to run, as in core/v1 PodSpec: containers with command, args, env, workingDir, ports and resources. Checked by the controller, which says what is wrong in a condition.",
                "x-kubernetes-preserve-unknown-fields": true
            }
        }
    })
}

/// Ports by container port: a list-map, so that the API server refuses duplicates.
pub fn ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["containerPort"],
        "items": {
            "type": "object",
            "required": ["containerPort", "hostPort"],
            "properties": {
                "containerPort": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535,
                    "description": "The port the template declares." },
                "hostPort": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535,
                    "description": "The port to connect to at the instance's address." },
                "name": { "type": "string", "maxLength": 63,
                    "description": "The port's name in the template." }
            }
        }
    })
}
