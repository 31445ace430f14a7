//! A right that is missing: read from the API server's own words, and how to get it.

use crate::api::GROUP;

/// A right that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    user: String,
    verb: String,
    /// With its group.
    resource: String,
    namespace: Option<String>,
}

impl Right {
    /// Reads it from the API server's own words.
    pub fn read(message: &str) -> Option<Right> {
        let (_, rest) = message.split_once("User \"")?;
        let (user, rest) = rest.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, rest) = rest.split_once('"')?;
        let namespace = rest
            .split_once("in the namespace \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(namespace, _)| namespace.to_owned());
        let resource = match group {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        };
        Some(Right {
            user: user.into(),
            verb: verb.into(),
            resource,
            namespace,
        })
    }
}

impl Right {
    /// Who lacks what, and where.
    pub fn lack(&self) -> String {
        let Right {
            user,
            verb,
            resource,
            namespace,
        } = self;
        let place = match namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None if self.is_of_cells() => " (they are cluster-wide)".into(),
            None if self.is_ours() => " in all namespaces".into(),
            None => String::new(),
        };
        format!("{user} lacks the right to {verb} {resource}{place}")
    }

    /// How to get it.
    pub fn remedy(&self) -> String {
        let Right { verb, resource, .. } = self;
        let mut text = format!("ask an administrator for a role with verb {verb} on {resource}");
        if self.is_ours() {
            let role = match (&**verb, self.is_of_cells()) {
                ("get" | "list" | "watch", false) => "view",
                (_, false) => "edit",
                (_, true) => "cell-admin",
            };
            text += &format!("; the chart has one that ends in -{role} (docs/install.md)");
        }
        text
    }

    fn is_ours(&self) -> bool {
        self.resource.ends_with(&format!(".{GROUP}"))
    }

    fn is_of_cells(&self) -> bool {
        self.resource == format!("cells.{GROUP}")
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wide = self.namespace.is_none() && self.is_ours() && !self.is_of_cells();
        let narrower = if wide { " try it without -A, or" } else { "" };
        write!(f, "{};{narrower} {}", self.lack(), self.remedy())
    }
}
