//! The report for people: a pure function of what was found and of the width there is.

use std::fmt::Write as _;

use super::finding::{Finding, Mark};
use crate::plugin::text::{BOLD, DIM, GREEN, Paint, RED, YELLOW, count, plain, wrap};

/// How the report looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Only what isn't right, without headings.
    pub short: bool,
    /// Whether categories have a heading.
    pub headers: bool,
    /// The width to keep to, where there is one.
    pub width: Option<usize>,
    /// Whether characters besides those of ASCII are shown.
    pub unicode: bool,
    /// Colours.
    pub paint: Paint,
}

/// The report. Commands and links stay whole, so that they can be copied: a terminal breaks them by itself.
pub fn report(findings: &[Finding], look: Look) -> String {
    let mut text = String::new();
    let mut category = None;
    for finding in findings {
        if look.short && finding.result == Mark::Ok {
            continue;
        }
        if !look.short
            && look.headers
            && category.replace(finding.category) != Some(finding.category)
        {
            text += if text.is_empty() { "" } else { "\n" };
            text += &look.paint.with(BOLD, finding.category.title());
            text.push('\n');
        }
        one(&mut text, finding, look);
    }
    text
}

fn one(text: &mut String, finding: &Finding, look: Look) {
    let (sign, colour) = sign(finding.result, look.unicode);
    let indent = sign.chars().count() + 1;
    let lines = |words: &str, indent: usize| match look.width {
        Some(width) => wrap(&plain(words), width.saturating_sub(indent).max(10)),
        None => vec![plain(words)],
    };
    for (n, line) in lines(&finding.message, indent).iter().enumerate() {
        let before = match n {
            0 => look.paint.with(colour, sign),
            _ => " ".repeat(indent - 1),
        };
        let _ = writeln!(text, "{before} {line}");
    }
    let words = [("why:", &finding.why), ("do:", &finding.remedy)];
    for (head, words) in words {
        let Some(words) = words else { continue };
        for (n, line) in lines(words, indent + 5).iter().enumerate() {
            let head = match n {
                0 => look.paint.with(DIM, head),
                _ => " ".repeat(head.len()),
            };
            let _ = writeln!(text, "{:indent$}{head} {line}", "");
        }
    }
    for (head, whole) in [("$", &finding.command), ("see:", &finding.docs)] {
        if let Some(whole) = whole {
            let head = look.paint.with(DIM, head);
            let _ = writeln!(text, "{:indent$}{head} {}", "", plain(whole));
        }
    }
}

fn sign(mark: Mark, unicode: bool) -> (&'static str, &'static str) {
    match (mark, unicode) {
        (Mark::Ok, true) => ("√", GREEN),
        (Mark::Warning, true) => ("‼", YELLOW),
        (Mark::Failure, true) => ("×", RED),
        (Mark::Ok, false) => ("ok  ", GREEN),
        (Mark::Warning, false) => ("warn", YELLOW),
        (Mark::Failure, false) => ("FAIL", RED),
    }
}

/// How it is as a whole; an error when something does not work.
///
/// # Errors
/// The same words, when something failed.
pub fn verdict(findings: &[Finding]) -> Result<String, String> {
    let of = |mark| {
        findings
            .iter()
            .filter(move |finding| finding.result == mark)
    };
    let (failures, warnings) = (of(Mark::Failure).count(), of(Mark::Warning).count());
    let all = count(findings.len(), "check");
    match (failures, warnings) {
        (0, 0) => Ok(format!("{all}: all is well")),
        (0, _) => Ok(format!("{all}: {}", count(warnings, "warning"))),
        (_, 0) => Err(format!("{all}: {}", count(failures, "failure"))),
        (_, _) => Err(format!(
            "{all}: {} and {}",
            count(failures, "failure"),
            count(warnings, "warning")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Category;
    use super::*;

    const LOOK: Look = Look {
        short: false,
        headers: true,
        width: None,
        unicode: true,
        paint: Paint(false),
    };

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok(Category::Crds, "crds", "the CRDs are those of this version"),
            Finding::failure(Category::Controller, "leader", "no controller leads")
                .because("the Lease ran out 40 s ago\x1b[2J")
                .remedy("look at the controllers' logs")
                .command("kubectl --context 'a b' logs --namespace diego-system deploy/x")
                .docs("docs/operating.md#two-controllers"),
            Finding::warning(Category::Controller, "version", "it is older"),
        ]
    }

    #[test]
    fn each_finding_has_a_line_and_each_failure_its_remedy() {
        let text = "\
CRDs
√ the CRDs are those of this version

Controller
× no controller leads
  why: the Lease ran out 40 s ago\u{fffd}[2J
  do: look at the controllers' logs
  $ kubectl --context 'a b' logs --namespace diego-system deploy/x
  see: docs/operating.md#two-controllers
‼ it is older
";
        assert_eq!(report(&findings(), LOOK), text);
        let short = report(
            &findings(),
            Look {
                short: true,
                ..LOOK
            },
        );
        assert!(short.starts_with("× no controller leads\n"), "{short}");
        assert!(!short.contains("CRDs"), "{short}");
    }

    #[test]
    fn words_keep_to_forty_columns_and_what_is_copied_stays_whole() {
        let look = Look {
            width: Some(30),
            unicode: false,
            ..LOOK
        };
        let text = report(&findings(), look);
        assert!(text.contains("FAIL no controller leads\n"), "{text}");
        for line in text.lines() {
            let copied = line.contains("$ ") || line.contains("see: ");
            assert!(copied || line.chars().count() <= 30, "{line}");
        }
        assert!(
            text.contains(
                "     $ kubectl --context 'a b' logs --namespace diego-system deploy/x\n"
            )
        );
    }

    #[test]
    fn only_failures_fail() {
        let all = findings();
        assert_eq!(
            verdict(&all),
            Err("3 checks: 1 failure and 1 warning".into())
        );
        assert_eq!(verdict(&all[2..]), Ok("1 check: 1 warning".into()));
        assert_eq!(verdict(&all[..1]), Ok("1 check: all is well".into()));
    }
}
