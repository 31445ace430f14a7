//! What a verb has done, as kubectl tells it.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::args::Format;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Row, Screen, try_print};

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

    /// Prints it at once: what comes next may fail. What comes next is done also when nobody reads on.
    ///
    /// # Errors
    /// When stdout does not take it.
    pub fn show(self, screen: &Screen) -> Result<(), Failure> {
        try_print(&self.render(screen)?).map(drop)
    }

    fn render(self, screen: &Screen) -> Result<String, Failure> {
        let now = Timestamp::now();
        match screen.format {
            Format::Table | Format::Wide | Format::Short => {
                Ok(format!("{} {}\n", self.id, self.result))
            }
            // One document each, however many come.
            Format::Yaml => Ok(format!("---\n{}", screen.render(&[self], now)?)),
            Format::Json | Format::Name => screen.render(&[self], now),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::text::Paint;

    #[test]
    fn two_of_them_are_two_documents() {
        let screen = Screen {
            format: Format::Yaml,
            headers: true,
            width: None,
            unicode: false,
            paint: Paint(false),
            live: false,
        };
        let one = |name| Done::new(Kind::Cell, None, name, "cordoned").render(&screen);
        let text = one("a").unwrap() + &one("b").unwrap();
        assert_eq!(
            text,
            "---\nkind: Cell\nname: a\nresult: cordoned\n---\nkind: Cell\nname: b\nresult: cordoned\n"
        );
    }
}
