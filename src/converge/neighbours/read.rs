//! Reading the required terms of a template, and of Pods of others.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Namespaces, PodNeeds, PodTerm, is_of_each, is_of_one};
use crate::converge::node::{Expression, Operator};

/// The terms that are honoured.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

impl PodNeeds {
    /// Reads a template's Pod.
    ///
    /// # Errors
    /// What can't be honoured, with the path of its field below the template.
    pub fn read(pod: &core::PodSpec) -> Result<PodNeeds, String> {
        let affinity = pod.affinity.as_ref();
        let near = affinity.and_then(|all| all.pod_affinity.as_ref());
        let near = near.and_then(|one| {
            one.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let apart = affinity.and_then(|all| all.pod_anti_affinity.as_ref());
        let apart = apart.and_then(|one| {
            one.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        Ok(PodNeeds {
            near: terms("podAffinity", near)?,
            apart: terms("podAntiAffinity", apart)?,
        })
    }
}

impl PodNeeds {
    /// What is known of a template that can't be read and is left to a scheduler: whom it keeps off.
    pub fn of_scheduled(pod: &core::PodSpec) -> PodNeeds {
        let affinity = pod
            .affinity
            .as_ref()
            .filter(|_| pod.scheduler_name.is_some());
        let apart = affinity.and_then(|all| all.pod_anti_affinity.as_ref());
        PodNeeds {
            near: Vec::new(),
            apart: apart.map(keeps_off).unwrap_or_default(),
        }
    }
}

fn terms(which: &str, list: Option<&Vec<core::PodAffinityTerm>>) -> Result<Vec<PodTerm>, String> {
    let list = list.into_iter().flatten().enumerate();
    list.map(|(i, one)| term(&format!("spec.affinity.{which}.{REQUIRED}[{i}]"), one))
        .collect()
}

/// The Pods that must not be near a Pod that nobody asks the auction to place. Where a term can't be told exactly, more
/// Pods are kept off and not fewer: one that selects namespaces by their labels means all.
pub fn keeps_off(affinity: &core::PodAntiAffinity) -> Vec<PodTerm> {
    let list = affinity
        .required_during_scheduling_ignored_during_execution
        .iter()
        .flatten();
    // The API server merges matchLabelKeys into the selector of a Pod; they only narrow it.
    let known = |one: &core::PodAffinityTerm| core::PodAffinityTerm {
        match_label_keys: None,
        mismatch_label_keys: None,
        namespace_selector: one.namespace_selector.as_ref().map(|_| Default::default()),
        ..one.clone()
    };
    list.filter_map(|one| read(&known(one)).ok()).collect()
}

/// A term of a template: what each instance has for itself tells none of them apart.
fn term(path: &str, one: &core::PodAffinityTerm) -> Result<PodTerm, String> {
    let term = read(one).map_err(|problem| format!("{path}.{problem}"))?;
    for one in term.selector.iter().flatten() {
        let by_value = matches!(one.operator, Operator::In | Operator::NotIn);
        let why = if is_of_each(&one.key) {
            "differs from instance to instance"
        } else if is_of_one(&one.key) && by_value {
            "differs from Pod to Pod: only Exists and DoesNotExist are known"
        } else {
            continue;
        };
        return Err(format!("{path}.labelSelector ({} {why})", one.key));
    }
    Ok(term)
}

fn read(one: &core::PodAffinityTerm) -> Result<PodTerm, String> {
    let core::PodAffinityTerm {
        label_selector,
        match_label_keys,
        mismatch_label_keys,
        namespace_selector,
        namespaces,
        topology_key,
    } = one;
    for (field, keys) in [
        ("matchLabelKeys", match_label_keys),
        ("mismatchLabelKeys", mismatch_label_keys),
    ] {
        if keys.as_ref().is_some_and(|keys| !keys.is_empty()) {
            return Err(field.into());
        }
    }
    if topology_key.is_empty() {
        return Err("topologyKey (must not be empty)".into());
    }
    let empty = |one: &LabelSelector| {
        let labels = one.match_labels.as_ref().is_none_or(|map| map.is_empty());
        let expressions = one.match_expressions.as_ref();
        labels && expressions.is_none_or(|list| list.is_empty())
    };
    let named = namespaces.clone().unwrap_or_default();
    let namespaces = match namespace_selector {
        Some(selector) if empty(selector) => Namespaces::All,
        Some(_) => return Err("namespaceSelector (only {} is known, for all namespaces)".into()),
        None if named.is_empty() => Namespaces::Own,
        None => Namespaces::These(named),
    };
    Ok(PodTerm {
        topology: topology_key.clone(),
        selector: label_selector.as_ref().map(selector).transpose()?,
        namespaces,
    })
}

fn selector(selector: &LabelSelector) -> Result<Vec<Expression>, String> {
    let equal = selector.match_labels.iter().flatten();
    let equal = equal.map(|(key, value)| {
        Ok(Expression {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        })
    });
    let others = selector.match_expressions.iter().flatten().enumerate();
    let others = others.map(|(i, one)| {
        let path = format!("labelSelector.matchExpressions[{i}]");
        let values = one.values.clone().unwrap_or_default();
        Expression::read(&path, &one.key, &one.operator, values, None)
    });
    equal.chain(others).collect()
}
