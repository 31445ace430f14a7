//! Results on stdout, in the format that was asked for; words on stderr.

use std::io::{IsTerminal, Write};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::args::{Common, Format, When};
use super::failure::Failure;
use super::text::{Paint, table};

/// A result that is one row of a table, and one object.
pub trait Row: Serialize {
    /// The heads of the columns; true for those of `-o wide` only.
    const HEADS: &'static [(&'static str, bool)];

    /// The values, in the same order.
    fn values(&self, now: Timestamp) -> Vec<String>;

    /// What `-o name` prints.
    fn id(&self) -> String;
}

/// Where results go, and how they are to look there.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// The format that was asked for.
    pub format: Format,
    /// Whether tables have a head.
    pub headers: bool,
    /// The width to keep to, where there is one.
    pub width: Option<usize>,
    /// Whether characters besides those of ASCII are shown.
    pub unicode: bool,
    /// Colours of results.
    pub paint: Paint,
    /// Whether results go to a terminal.
    pub live: bool,
}

impl Screen {
    /// What stdout and the environment say.
    pub fn new(common: &Common) -> Screen {
        let live = std::io::stdout().is_terminal();
        let env = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let set = env("COLUMNS").and_then(|text| text.parse().ok());
        let set = set.filter(|width| *width > 0);
        let locale = env("LC_ALL")
            .or_else(|| env("LC_CTYPE"))
            .or_else(|| env("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let colours = match common.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                live && env("NO_COLOR").is_none() && env("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Screen {
            format: common.output,
            headers: !common.no_headers,
            width: if live {
                size().map(|(width, _)| width).or(set)
            } else {
                set
            },
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            paint: Paint(colours),
            live,
        }
    }

    /// Prints rows.
    ///
    /// # Errors
    /// When stdout does not take them.
    pub fn show<R: Row>(&self, rows: &[R]) -> Result<(), Failure> {
        print(&self.render(rows, Timestamp::now())?)
    }

    /// The rows as text.
    ///
    /// # Errors
    /// When a value has no form in JSON or YAML.
    pub fn render<R: Row>(&self, rows: &[R], now: Timestamp) -> Result<String, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::Failed(format!("a result can't be written: {error}"))
        };
        let mut text = String::new();
        match self.format {
            Format::Table | Format::Wide | Format::Short => {
                let wide = self.format == Format::Wide;
                let is_shown: Vec<bool> = R::HEADS.iter().map(|(_, only)| wide || !only).collect();
                let heads = R::HEADS.iter().zip(&is_shown).filter(|(_, shown)| **shown);
                let heads: Vec<&str> = heads.map(|((head, _), _)| *head).collect();
                let values = |row: &R| {
                    let values = row.values(now).into_iter().zip(&is_shown);
                    values
                        .filter(|(_, shown)| **shown)
                        .map(|(value, _)| value)
                        .collect()
                };
                let rows: Vec<Vec<String>> = rows.iter().map(values).collect();
                if !rows.is_empty() {
                    text = table(&heads, &rows, self.headers, self.width);
                }
            }
            Format::Json => {
                for row in rows {
                    text += &serde_json::to_string(row).map_err(|error| wrong(&error))?;
                    text.push('\n');
                }
            }
            Format::Yaml => {
                for (n, row) in rows.iter().enumerate() {
                    text += if n > 0 { "---\n" } else { "" };
                    text += &serde_saphyr::to_string(row).map_err(|error| wrong(&error))?;
                }
            }
            Format::Name => {
                let mut ids: Vec<String> = rows.iter().map(Row::id).collect();
                ids.dedup();
                for id in ids {
                    text += &id;
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }
}

/// Columns and lines of the terminal, if stdout is one.
pub fn size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size()?;
    Some((width.0.into(), height.0.into())).filter(|(width, height)| *width > 0 && *height > 0)
}

/// Columns of the terminal that words go to, if stderr is one.
pub fn columns_of_words() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stderr())?;
    Some(width.0.into()).filter(|width| *width > 0)
}

/// Writes to stdout at once. That nobody reads on, such as `head`, is no failure: the program ends. Not for what has more
/// to do than to show.
///
/// # Errors
/// When it does not take it.
pub fn print(text: &str) -> Result<(), Failure> {
    match try_print(text)? {
        true => Ok(()),
        false => std::process::exit(0),
    }
}

/// Writes to stdout at once; false when nobody reads on.
///
/// # Errors
/// When it does not take it.
pub fn try_print(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("stdout takes nothing: {error}"))),
    }
}

/// Says something to people.
pub fn say(text: &str) {
    // Who closed stderr does not want to hear it.
    let _ = writeln!(std::io::stderr(), "{}", super::text::plain(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct One {
        name: &'static str,
        size: u32,
    }

    impl Row for One {
        const HEADS: &'static [(&'static str, bool)] = &[("NAME", false), ("SIZE", true)];

        fn values(&self, _: Timestamp) -> Vec<String> {
            vec![self.name.into(), self.size.to_string()]
        }

        fn id(&self) -> String {
            format!("one/{}", self.name)
        }
    }

    #[test]
    fn each_format_has_its_form() {
        let rows = [One { name: "a", size: 1 }, One { name: "b", size: 2 }];
        for (format, expected) in [
            (Format::Table, "NAME\na\nb\n"),
            (Format::Wide, "NAME   SIZE\na      1\nb      2\n"),
            (
                Format::Json,
                "{\"name\":\"a\",\"size\":1}\n{\"name\":\"b\",\"size\":2}\n",
            ),
            (Format::Yaml, "name: a\nsize: 1\n---\nname: b\nsize: 2\n"),
            (Format::Name, "one/a\none/b\n"),
        ] {
            let screen = Screen {
                format,
                headers: true,
                width: None,
                unicode: false,
                paint: Paint(false),
                live: false,
            };
            let text = screen.render(&rows, Timestamp::UNIX_EPOCH);
            assert_eq!(text.as_deref(), Ok(expected));
            assert_eq!(
                screen.render::<One>(&[], Timestamp::UNIX_EPOCH).as_deref(),
                Ok("")
            );
        }
    }
}
