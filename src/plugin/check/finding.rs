//! What a check found: one line, and where something is wrong why, what to do and where to read on.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::plugin::failure::Failure;
use crate::plugin::output::Row;

/// What checks are about, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// The API server.
    Kubernetes,
    /// What the user may do.
    Rights,
    /// The kinds.
    Crds,
    /// The controllers, and who of them leads.
    Controller,
    /// The reps, and the Nodes that they are on.
    Reps,
    /// The presence store.
    Presence,
    /// The clocks of all.
    Clocks,
    /// The Cells.
    Cells,
    /// Instances and Tasks.
    Work,
    /// Whether somebody is told when something goes wrong.
    Monitoring,
}

impl Category {
    /// As its heading has it.
    pub fn title(self) -> &'static str {
        match self {
            Category::Kubernetes => "Kubernetes",
            Category::Rights => "Your rights",
            Category::Crds => "CRDs",
            Category::Controller => "Controller",
            Category::Reps => "Reps",
            Category::Presence => "Presence",
            Category::Clocks => "Clocks",
            Category::Cells => "Cells",
            Category::Work => "Work",
            Category::Monitoring => "Monitoring",
        }
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Failure,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is about.
    pub category: Category,
    /// The check's name, which does not change.
    pub check: &'static str,
    /// How it is.
    pub result: Mark,
    /// What is so.
    pub message: String,
    /// What that means, or how it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The command that does it, or shows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Where to read on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

impl Finding {
    fn new(category: Category, check: &'static str, result: Mark, message: String) -> Finding {
        Finding {
            category,
            check,
            result,
            message,
            why: None,
            remedy: None,
            command: None,
            docs: None,
        }
    }

    /// It is as it should be.
    pub fn ok(category: Category, check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(category, check, Mark::Ok, message.into())
    }

    /// Somebody should look.
    pub fn warning(category: Category, check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(category, check, Mark::Warning, message.into())
    }

    /// It does not work.
    pub fn failure(category: Category, check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(category, check, Mark::Failure, message.into())
    }

    /// Nobody could look: a right that is missing is the user's trouble and not the installation's.
    pub fn unseen(
        category: Category,
        check: &'static str,
        what: &str,
        failure: &Failure,
    ) -> Finding {
        match failure {
            Failure::NoRight(right) => {
                Finding::warning(category, check, format!("{what} can't be looked at"))
                    .because(right.lack())
                    .remedy(right.remedy())
                    .docs("plugin.md#rights-of-check")
            }
            failure => Finding::failure(category, check, format!("{what} can't be read"))
                .because(failure.to_string()),
        }
    }

    /// What it means, or how it came.
    pub fn because(mut self, why: impl Into<String>) -> Finding {
        self.why = Some(why.into());
        self
    }

    /// What to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }

    /// The command that does it, or shows more.
    pub fn command(mut self, command: impl Into<String>) -> Finding {
        self.command = Some(command.into());
        self
    }

    /// Where to read on: a file below `docs`, with its heading.
    pub fn docs(mut self, page: &str) -> Finding {
        self.docs = Some(page.into());
        self
    }
}

impl Row for Finding {
    const HEADS: &'static [(&'static str, bool)] = &[];

    fn values(&self, _: Timestamp) -> Vec<String> {
        Vec::new()
    }

    fn id(&self) -> String {
        self.check.into()
    }
}

/// Some names, and how many more: `a, b and 7 more`.
pub fn some(names: impl IntoIterator<Item = String>) -> String {
    const NAMED: usize = 3;
    let names: Vec<String> = names.into_iter().collect();
    match names.len() {
        0..=NAMED => names.join(", "),
        all => format!("{} and {} more", names[..NAMED].join(", "), all - NAMED),
    }
}
