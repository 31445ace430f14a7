//! Words and tables: pure functions of what is to be shown and of the width there is.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;

/// Colours, where they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

/// Warnings, and what is lost.
pub const RED: &str = "31";
/// What wants attention.
pub const YELLOW: &str = "33";
/// What is well.
pub const GREEN: &str = "32";
/// Heads.
pub const BOLD: &str = "1";
/// What matters less.
pub const DIM: &str = "2";

impl Paint {
    /// The text in the colour of an ANSI code.
    pub fn with(self, code: &str, text: &str) -> String {
        match self.0 && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// The text without what a terminal would obey: much of what is shown was written by others.
pub fn plain(text: &str) -> String {
    // Besides controls: line breaks of Unicode, what turns the direction of writing, and what takes no room.
    let obeyed = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
            )
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |c| match c {
        '\n' | '\t' => ' ',
        c if obeyed(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// At most `width` characters of the text; the last one says that some are missing.
pub fn cut(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => text.to_owned(),
        false => {
            let kept = text.chars().take(width.saturating_sub(1));
            kept.chain(['~']).collect()
        }
    }
}

/// The words of a text in lines of at most `width` characters; a longer word is broken.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is always a line");
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + word.len() <= width {
                line.push_str(if space > 0 { " " } else { "" });
                line.extend(word);
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            line.extend(word.drain(..width));
        }
    }
    lines
}

/// A table as kubectl prints it. Where it is wider than `width`, one line for each value instead.
pub fn table(heads: &[&str], rows: &[Vec<String>], headers: bool, width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let head = if headers { heads[column].len() } else { 0 };
        cells.max().unwrap_or(0).max(head)
    };
    let widths: Vec<usize> = (0..heads.len()).map(widest).collect();
    let whole = widths.iter().sum::<usize>() + 3 * widths.len().saturating_sub(1);
    if width.is_some_and(|width| whole > width) && !rows.is_empty() {
        return stacked(heads, &rows, width.unwrap_or_default());
    }
    let mut text = String::new();
    let head = headers.then(|| heads.iter().map(|head| (*head).to_owned()).collect());
    for row in head.iter().chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// One block for each row, headed by its first value.
fn stacked(heads: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let widest = heads.iter().skip(1).map(|head| head.len()).max();
    let indent = widest.unwrap_or(0) + 4;
    let mut text = String::new();
    for row in rows {
        text += &cut(&row[0], width);
        text.push('\n');
        for (head, cell) in heads
            .iter()
            .zip(row)
            .skip(1)
            .filter(|(_, cell)| !cell.is_empty())
        {
            let mut head = format!("  {head}");
            for line in wrap(cell, width.saturating_sub(indent)) {
                let _ = writeln!(text, "{head:<indent$}{line}");
                head.clear();
            }
        }
    }
    text
}

/// The time between two moments in one unit, rounded down.
pub fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time between two moments to the thousandth of a second.
pub fn span(from: Timestamp, to: Timestamp) -> String {
    let millis = to.duration_since(from).as_millis();
    let sign = if millis < 0 { "-" } else { "+" };
    let millis = millis.unsigned_abs();
    match millis / 1000 {
        seconds @ ..120 => format!("{sign}{seconds}.{:03}s", millis % 1000),
        seconds @ 120..7200 => format!("{sign}{}m{}s", seconds / 60, seconds % 60),
        seconds => format!("{sign}{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A moment in UTC, to the thousandth of a second.
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How many of something, in the right number.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_kubectls_and_falls_apart_where_it_does_not_fit() {
        let rows = [
            vec!["cell-1".to_owned(), "z1".into(), "12/250".into()],
            vec!["b".into(), String::new(), "no \x1b[31mroom at all".into()],
        ];
        let heads = ["NAME", "ZONE", "CONTAINERS"];
        assert_eq!(
            table(&heads, &rows, true, None),
            "NAME     ZONE   CONTAINERS\ncell-1   z1     12/250\nb               no \u{fffd}[31mroom at all\n"
        );
        assert_eq!(
            table(&heads, &rows[..1], false, Some(80)),
            "cell-1   z1   12/250\n"
        );
        let narrow = "cell-1\n  ZONE        z1\n  CONTAINERS  12/250\nb\n  CONTAINERS  no \u{fffd}[31mroom\n              at all\n";
        assert_eq!(table(&heads, &rows, true, Some(26)), narrow);
    }

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("ab abcdefgh", 3), ["ab", "abc", "def", "gh"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(cut("abcdef", 4), "abc~");
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        for c in [
            '\u{1b}', '\u{200b}', '\u{200e}', '\u{200f}', '\u{061c}', '\u{2028}', '\u{2029}',
            '\u{202e}', '\u{2066}', '\u{feff}',
        ] {
            assert_eq!(plain(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
        assert_eq!(plain("a\nb\tü ■"), "a b ü ■");
    }

    #[test]
    fn times_are_short() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        assert_eq!(age(at(0), at(119_000)), "119s");
        assert_eq!(age(at(0), at(7_200_000)), "2h");
        assert_eq!(age(at(5000), at(0)), "0s");
        assert_eq!(span(at(0), at(4812)), "+4.812s");
        assert_eq!(span(at(4812), at(0)), "-4.812s");
        assert_eq!(span(at(0), at(125_000)), "+2m5s");
        assert_eq!(span(at(0), at(7_260_000)), "+2h1m");
        assert_eq!(moment(at(1500)), "1970-01-01 00:00:01.500");
    }
}
