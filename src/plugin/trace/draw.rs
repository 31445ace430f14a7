//! A time line as text.

use k8s_openapi::jiff::Timestamp;

use super::timeline::Entry;
use crate::plugin::text::{BOLD, DIM, Paint, RED, moment, plain, span, wrap};

/// The length of a moment without its fraction.
const WHOLE_SECONDS: usize = "1970-01-01 00:00:00".len();

/// A message that gets less room than this beside the rest stands below it.
const MESSAGE: usize = 30;

/// The time line as text: each moment with the time since the one before.
pub fn draw(
    entries: &[Entry],
    now: Timestamp,
    width: Option<usize>,
    headers: bool,
    paint: Paint,
) -> String {
    let widest = entries.iter().map(|entry| entry.what.chars().count()).max();
    let what = widest.unwrap_or(0).max(4);
    let indent = 23 + 3 + 9 + 3 + 9 + 3 + what + 3;
    let one_line = width.is_none_or(|width| width >= indent + MESSAGE);
    let mut text = String::new();
    if headers && one_line && !entries.is_empty() {
        let head = format!(
            "{:<23}   {:>9}   {:<9}   {:<what$}   WHY",
            "TIME (UTC)", "AFTER", "FROM", "WHAT"
        );
        text += &format!("{}\n", paint.with(BOLD, &head));
    }
    let mut before: Option<Timestamp> = None;
    for entry in entries {
        let mut time = moment(entry.time);
        let mut after = String::new();
        if entry.coarse {
            time.truncate(WHOLE_SECONDS);
        } else {
            let since = before.map(|before| span(before, entry.time));
            after = since.unwrap_or_default();
            before = Some(entry.time);
        }
        let future = if entry.is_planned() && entry.time > now {
            "to come: "
        } else {
            ""
        };
        let message = plain(&format!("{future}{}", entry.message));
        let word = plain(&entry.what);
        let code = if entry.warning { RED } else { "0" };
        let source = entry.source.as_str();
        if one_line {
            let word = paint.with(code, &format!("{word:<what$}"));
            let lines = match width {
                Some(width) => wrap(&message, width - indent),
                None => vec![message],
            };
            let line = format!(
                "{time:<23}   {after:>9}   {source:<9}   {word}   {}",
                lines[0]
            );
            text += line.trim_end();
            text.push('\n');
            for line in &lines[1..] {
                text += &format!("{:indent$}{line}\n", "");
            }
        } else {
            let width = width.unwrap_or(usize::MAX);
            text += format!("{time} {}", paint.with(DIM, &after)).trim_end();
            text.push('\n');
            for (n, line) in wrap(
                &format!("{word} ({source}): {message}"),
                width.saturating_sub(4),
            )
            .iter()
            .enumerate()
            {
                let line = if n == 0 {
                    paint.with(code, line)
                } else {
                    format!("  {line}")
                };
                text += &format!("  {line}\n");
            }
        }
    }
    text
}
