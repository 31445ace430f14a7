//! What a verb has done, as kubectl tells it.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::args::Format;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Row, Screen, print};

/// What was done to an object.
#[derive(Debug, Serialize)]
pub struct Done {
    /// The object's kind.
    pub kind: &'static str,
    /// Its namespace, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What was done.
    pub result: &'static str,
    #[serde(skip)]
    id: String,
}

impl Done {
    /// That `result` was done to it.
    pub fn new(kind: Kind, namespace: Option<String>, name: &str, result: &'static str) -> Done {
        Done {
            kind: kind.as_str(),
            namespace,
            name: name.into(),
            result,
            id: kind.id(name),
        }
    }

    /// Prints it at once: what comes next may fail.
    ///
    /// # Errors
    /// When stdout does not take it.
    pub fn show(self, screen: &Screen) -> Result<(), Failure> {
        match screen.format {
            Format::Table | Format::Wide => print(&format!("{} {}\n", self.id, self.result)),
            Format::Json | Format::Yaml | Format::Name => screen.show(&[self]),
        }
    }
}

impl Row for Done {
    const HEADS: &'static [(&'static str, bool)] = &[("NAME", false), ("RESULT", false)];

    fn values(&self, _: Timestamp) -> Vec<String> {
        vec![self.id.clone(), self.result.into()]
    }

    fn id(&self) -> String {
        self.id.clone()
    }
}
