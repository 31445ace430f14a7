//! What a template asks of the node it shall run on.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::PodSpec;

use super::TaintEffect;

/// What a Pod asks of its node, beside room. Equal needs fit the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NodeNeeds {
    /// This very node (`spec.nodeName`).
    pub node_name: Option<String>,
    /// These labels (`spec.nodeSelector`).
    pub selector: Vec<(String, String)>,
    /// One of these terms (`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution`).
    pub affinity: Option<Vec<Term>>,
    /// The taints that it bears.
    pub tolerations: Vec<Toleration>,
}

/// One term of a node affinity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Term {
    /// What it asks of labels.
    pub labels: Vec<Expression>,
    /// What it asks of the name.
    pub names: Vec<Expression>,
}

/// What is asked of one label, or of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// It is one of the values.
    In,
    /// It is none of the values, or not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a greater number.
    Gt,
    /// It is a lesser number.
    Lt,
}

/// A taint that a Pod bears.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Toleration {
    /// The taint's key; empty for any.
    pub key: String,
    /// The taint's value; `None` for any (operator Exists).
    pub value: Option<String>,
    /// The taint's effect; `None` for any.
    pub effect: Option<TaintEffect>,
}

/// The one field of a node that an affinity may ask for.
const NAME_FIELD: &str = "metadata.name";

impl NodeNeeds {
    /// Reads a template's Pod.
    ///
    /// # Errors
    /// What can't be read, with the path of its field below the template.
    pub fn read(pod: &PodSpec) -> Result<NodeNeeds, String> {
        let selector = pod.node_selector.iter().flatten();
        let required = pod
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|node| {
                node.required_during_scheduling_ignored_during_execution
                    .as_ref()
            });
        let affinity = required.map(|required| {
            let terms = required.node_selector_terms.iter().enumerate();
            terms.map(|(i, one)| term(i, one)).collect()
        });
        let tolerations = pod.tolerations.iter().flatten().enumerate();
        Ok(NodeNeeds {
            node_name: pod.node_name.clone(),
            selector: selector
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            affinity: affinity.transpose()?,
            tolerations: tolerations
                .map(|(i, one)| toleration(i, one))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn term(i: usize, term: &core::NodeSelectorTerm) -> Result<Term, String> {
    let path = format!(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{i}]"
    );
    let read = |what: &str, list: &Option<Vec<core::NodeSelectorRequirement>>| {
        let list = list.iter().flatten().enumerate();
        list.map(|(j, one)| expression(&format!("{path}.{what}[{j}]"), one))
            .collect::<Result<Vec<_>, _>>()
    };
    let names = read("matchFields", &term.match_fields)?;
    for (j, one) in names.iter().enumerate() {
        if one.key != NAME_FIELD || !matches!(one.operator, Operator::In | Operator::NotIn) {
            return Err(format!(
                "{path}.matchFields[{j}] (only {NAME_FIELD} with operator In or NotIn can be asked for)"
            ));
        }
    }
    Ok(Term {
        labels: read("matchExpressions", &term.match_expressions)?,
        names,
    })
}

fn expression(path: &str, one: &core::NodeSelectorRequirement) -> Result<Expression, String> {
    let values = one.values.clone().unwrap_or_default();
    let operator = match one.operator.as_str() {
        "Gt" => Some((Operator::Gt, is_one_number(&values))),
        "Lt" => Some((Operator::Lt, is_one_number(&values))),
        _ => None,
    };
    Expression::read(path, &one.key, &one.operator, values, operator)
}

impl Expression {
    /// Reads what selectors of nodes and of Pods say alike; `more` is an operator that only the former know, and whether its
    /// values fit.
    ///
    /// # Errors
    /// What is wrong, with its path.
    pub fn read(
        path: &str,
        key: &str,
        operator: &str,
        values: Vec<String>,
        more: Option<(Operator, bool)>,
    ) -> Result<Expression, String> {
        let (known, fits) = match (operator, more) {
            (_, Some(more)) => more,
            ("In", None) => (Operator::In, !values.is_empty()),
            ("NotIn", None) => (Operator::NotIn, !values.is_empty()),
            ("Exists", None) => (Operator::Exists, values.is_empty()),
            ("DoesNotExist", None) => (Operator::DoesNotExist, values.is_empty()),
            (other, None) => return Err(format!("{path}.operator ({other:?} is not known)")),
        };
        match fits {
            true => Ok(Expression {
                key: key.to_owned(),
                operator: known,
                values,
            }),
            false => Err(format!(
                "{path}.values ({} does not go with operator {operator})",
                serde_json::json!(values)
            )),
        }
    }
}

fn is_one_number(values: &[String]) -> bool {
    matches!(values, [one] if one.parse::<i64>().is_ok())
}

fn toleration(i: usize, one: &core::Toleration) -> Result<Toleration, String> {
    let path = format!("spec.tolerations[{i}]");
    let key = one.key.clone().unwrap_or_default();
    let value = match one.operator.as_deref() {
        Some("Exists") => None,
        None | Some("" | "Equal") if key.is_empty() => {
            return Err(format!(
                "{path}.operator (must be Exists where there is no key)"
            ));
        }
        None | Some("" | "Equal") => Some(one.value.clone().unwrap_or_default()),
        Some(other) => return Err(format!("{path}.operator ({other:?} is not known)")),
    };
    let effect = match one.effect.as_deref() {
        None | Some("") => None,
        Some(name) => match TaintEffect::of(name) {
            Some(effect) => Some(effect),
            None => return Err(format!("{path}.effect ({name:?} is not known)")),
        },
    };
    Ok(Toleration { key, value, effect })
}
