//! Files that are read again and again, and are not always good: each problem is told once.

use std::collections::BTreeSet;

/// So many problems are remembered; what else comes is told again.
const PROBLEMS: usize = 16;

/// What was already said of files that do not work. `T` is what they held.
pub struct Told<T> {
    /// The last ones that could be read and did not work.
    refused: Option<T>,
    /// Why there was nothing to try.
    problems: BTreeSet<String>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Told {
            refused: None,
            problems: BTreeSet::new(),
        }
    }
}

impl<T: PartialEq> Told<T> {
    /// Whether this was not said yet. The same files are told once, however they fail; files that can't be read, once for
    /// each problem.
    pub fn is_news(&mut self, new: Option<T>, problem: &str) -> bool {
        match new {
            Some(new) if self.has_refused(&new) => false,
            Some(new) => {
                self.refused = Some(new);
                true
            }
            None if self.problems.contains(problem) => false,
            None => {
                if self.problems.len() >= PROBLEMS {
                    self.problems.clear();
                }
                self.problems.insert(problem.to_owned())
            }
        }
    }

    /// Whether these files did not work before.
    pub fn has_refused(&self, new: &T) -> bool {
        self.refused.as_ref() == Some(new)
    }

    /// Forgets it all; whether there was something.
    pub fn is_over(&mut self) -> bool {
        let Told { refused, problems } = std::mem::take(self);
        refused.is_some() || !problems.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once() {
        let mut told = Told::default();
        assert!(!told.is_over(), "nothing was wrong");
        for (new, problem, news) in [
            (None, "tls.key: no such file", true),
            (None, "tls.key: no such file", false),
            (None, "tls.crt: no such file", true),
            (Some("a"), "permission denied", true),
            // The same files, in whatever words they are refused.
            (Some("a"), "timeout", false),
            (None, "tls.key: no such file", false),
            (Some("b"), "timeout", true),
        ] {
            let what = new.map(|_| "files");
            assert_eq!(told.is_news(new, problem), news, "{what:?} {problem}");
        }
        assert!(told.has_refused(&"b") && !told.has_refused(&"c"));
        assert!(told.is_over(), "the old files are back");
        assert!(
            told.is_news(None, "tls.key: no such file"),
            "it is another time"
        );
        for i in 0..10 * PROBLEMS {
            told.is_news(None, &i.to_string());
            assert!(told.problems.len() <= PROBLEMS);
        }
    }
}
