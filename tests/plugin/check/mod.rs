//! `check`: each fault is put in, found, and told with its remedy.

mod before;
mod clocks;
mod faults;
mod installed;

use serde_json::Value;

use crate::support::{Failure, eventually, site::START};
use crate::{Plugin, objects};

/// What one look found.
pub struct Found {
    status: i32,
    all: Vec<Value>,
}

impl Found {
    /// Looks with these further flags.
    pub async fn by(plugin: &Plugin, flags: &str) -> Result<Found, Failure> {
        let said = plugin
            .run(format!("check -o json {flags}").trim_end())
            .await?;
        Ok(Found {
            status: said.status,
            all: objects(&said.stdout)?,
        })
    }

    /// Whether a check found this, with these words in its line, its reason, its remedy or its command. A fault has a
    /// remedy, and a page that is there.
    pub fn has(&self, check: &str, result: &str, words: &[&str]) -> bool {
        let is_it = |one: &Value| {
            let text = one.to_string();
            let helps = result == "ok" || (one["remedy"].is_string() && one["docs"].is_string());
            let same = one["check"] == check && one["result"] == result;
            same && helps && words.iter().all(|word| text.contains(word))
        };
        self.all.iter().any(is_it)
    }
}

/// Waits until a check finds this, and returns all that was found then.
pub async fn finds(
    plugin: &Plugin,
    flags: &str,
    check: &str,
    result: &str,
    words: &[&str],
) -> Result<Found, Failure> {
    eventually(
        &format!("{check} is {result}: {words:?}"),
        START,
        || async {
            let found = Found::by(plugin, flags).await.ok()?;
            let fails = found.all.iter().any(|one| one["result"] == "failure");
            assert_eq!(found.status, i32::from(fails));
            found.has(check, result, words).then_some(found)
        },
    )
    .await
}
