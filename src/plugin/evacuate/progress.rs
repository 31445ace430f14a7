//! How far an evacuation is, in words on stderr.

use std::io::{IsTerminal, Write};

use k8s_openapi::jiff::Timestamp;

use crate::plugin::output::{columns_of_words, say};
use crate::plugin::text::{age, cut, plain};

/// Words on stderr: one line that changes on a terminal, else one line for each change.
pub struct Progress {
    terminal: bool,
    last: String,
    began: Timestamp,
}

impl Progress {
    /// Nothing is told yet.
    pub fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            last: String::new(),
            began: Timestamp::now(),
        }
    }

    /// Tells it, where it is new.
    pub fn tell(&mut self, words: &str) {
        if words.is_empty() {
            return;
        }
        if self.terminal {
            let age = age(self.began, Timestamp::now());
            let width = columns_of_words().unwrap_or(80);
            // Who closed stderr does not want to hear it.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(&age, words, width));
        } else if self.last != words {
            say(words);
        }
        self.last = words.to_owned();
    }

    /// Makes room for a result.
    pub fn clear(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// One line of a terminal. Its last column stays free: what stands there is not erased everywhere.
fn line(age: &str, words: &str, width: usize) -> String {
    cut(&plain(&format!("{age}  {words}")), width.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_terminals_width_and_no_more() {
        let words = "cell-1: Evacuating, 3 instances left";
        assert_eq!(line("5s", words, 20), "5s  cell-1: Evacua~");
        assert_eq!(line("5s", words, 120), format!("5s  {words}"));
    }
}
