//! The picture of what runs where, as text of a given width.

use std::collections::{BTreeMap, BTreeSet};

use super::picture::{Block, Mark, OnCell, Picture};
use crate::plugin::cell_row::is_trouble;
use crate::plugin::text::{BOLD, DIM, Paint, RED, YELLOW, count, cut, plain, wrap};

/// The colours of DesiredLRPs, which are dealt out in turn.
const COLOURS: [&str; 10] = ["32", "34", "36", "35", "33", "92", "94", "96", "95", "93"];

/// So many instances without a Cell are named.
const NAMED: usize = 10;

/// The narrowest width at which blocks stand beside the Cell, and not below it.
const BESIDE: usize = 64;

/// How it is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// No line is longer.
    pub width: usize,
    /// Whether characters besides those of ASCII are shown.
    pub unicode: bool,
    /// Whether the instances of each Cell are counted by DesiredLRP.
    pub wide: bool,
    /// Whether there is a legend.
    pub legend: bool,
    /// Colours.
    pub paint: Paint,
}

/// The sign of a block. Each is another one, so that they are told apart without colours.
fn sign(mark: Mark, unicode: bool) -> char {
    match (mark, unicode) {
        (Mark::Running, true) => '■',
        (Mark::Starting, true) => '□',
        (Mark::Suspect, true) => '▒',
        (Mark::Evacuating, true) => '▶',
        (Mark::Task, true) => '●',
        (Mark::TaskStarting, true) => '○',
        (Mark::Running, false) => '#',
        (Mark::Starting, false) => '+',
        (Mark::Suspect, false) => '?',
        (Mark::Evacuating, false) => '>',
        (Mark::Task, false) => '@',
        (Mark::TaskStarting, false) => 'o',
    }
}

fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Running => "running",
        Mark::Starting => "starting",
        Mark::Suspect => "suspect",
        Mark::Evacuating => "evacuating",
        Mark::Task => "Task",
        Mark::TaskStarting => "Task starting",
    }
}

/// Which colour each DesiredLRP has.
type Colours<'a> = BTreeMap<(&'a str, &'a str), &'static str>;

/// Draws it.
pub fn draw(picture: &Picture, style: Style) -> String {
    let owners: BTreeSet<_> = picture
        .cells()
        .flat_map(|cell| cell.blocks.iter().filter(|block| !block.process.is_empty()))
        .map(Block::owner)
        .collect();
    let colours: Colours = owners
        .into_iter()
        .zip(COLOURS.into_iter().cycle())
        .collect();
    let mut lines = Vec::new();
    for (zone, cells) in &picture.zones {
        lines.extend(zone_head(zone, cells, style));
        for cell in cells {
            lines.extend(cell_lines(
                cell,
                &colours,
                name_width(picture, style),
                style,
            ));
        }
    }
    lines.extend(waiting(picture, style));
    if style.legend {
        lines.extend(legend(&colours, style));
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn name_width(picture: &Picture, style: Style) -> usize {
    let longest = picture.cells().map(|cell| cell.name.chars().count()).max();
    let most = if style.width < BESIDE { 12 } else { 24 };
    longest.unwrap_or(0).clamp(6, most)
}

fn zone_head(zone: &str, cells: &[OnCell], style: Style) -> Vec<String> {
    let blocks = || cells.iter().flat_map(|cell| &cell.blocks);
    let tasks = blocks().filter(|block| block.process.is_empty()).count();
    let instances = blocks().count() - tasks;
    let head = format!(
        "{}: {}, {}, {}",
        plain(zone),
        count(cells.len(), "Cell"),
        count(instances, "instance"),
        count(tasks, "Task")
    );
    let lines = wrap(&head, style.width);
    lines
        .iter()
        .map(|line| style.paint.with(BOLD, line))
        .collect()
}

fn cell_lines(cell: &OnCell, colours: &Colours, name_width: usize, style: Style) -> Vec<String> {
    let paint = style.paint;
    let state = cut(&plain(&cell.state), 12);
    let state = match &*cell.state {
        "Ready" => format!("{state:<12}"),
        text if is_trouble(text) => paint.with(RED, &format!("{state:<12}")),
        _ => paint.with(YELLOW, &format!("{state:<12}")),
    };
    let memory = match cell.load.memory_percent() {
        Some(percent) => format!("{percent}%"),
        None => "-".into(),
    };
    let name = cut(&cell.name, name_width);
    let containers = cell.load.containers();
    let head = format!("{name:<name_width$} {state} {containers:>7} {memory:>4}");
    // The head's width without what a terminal does not show.
    let used = name_width + 1 + 12 + 1 + containers.len().max(7) + 1 + memory.len().max(4);
    let beside = style.width >= BESIDE;
    let indent = if beside { used + 2 } else { 2 };
    let room = style.width.saturating_sub(indent).max(1);
    let signs: Vec<String> = cell
        .blocks
        .iter()
        .map(|block| {
            let sign = sign(block.mark, style.unicode).to_string();
            match (block.mark, colours.get(&block.owner())) {
                (Mark::Suspect, _) => paint.with(RED, &sign),
                (_, Some(colour)) => paint.with(colour, &sign),
                (_, None) => sign,
            }
        })
        .collect();
    let mut rows = signs.chunks(room).map(<[String]>::concat);
    let mut lines = match (beside, rows.next()) {
        (true, Some(first)) => vec![format!("{head}  {first}")],
        (true, None) => vec![head],
        (false, first) => std::iter::once(head)
            .chain(first.map(|first| format!("  {first}")))
            .collect(),
    };
    lines.extend(rows.map(|row| format!("{:indent$}{row}", "")));
    if style.wide && !cell.blocks.is_empty() {
        for line in wrap(&census(&cell.blocks), room) {
            lines.push(format!("{:indent$}{}", "", paint.with(DIM, &line)));
        }
    }
    lines
}

/// How many of what: `default/web 3, default/api 1 suspect, 2 Tasks`.
fn census(blocks: &[Block]) -> String {
    let mut counts: BTreeMap<(bool, (&str, &str), Mark), usize> = BTreeMap::new();
    for block in blocks {
        let owner = if block.process.is_empty() {
            ("", "")
        } else {
            block.owner()
        };
        *counts
            .entry((block.process.is_empty(), owner, block.mark))
            .or_default() += 1;
    }
    let parts = counts
        .into_iter()
        .map(
            |((is_task, (namespace, process), mark), number)| match (is_task, mark) {
                (true, Mark::Task) => count(number, "Task"),
                (true, _) => format!("{} starting", count(number, "Task")),
                (false, Mark::Running) => format!("{namespace}/{process} {number}"),
                (false, mark) => format!("{namespace}/{process} {number} {}", word(mark)),
            },
        );
    parts.collect::<Vec<_>>().join(", ")
}

/// Instances without a Cell.
fn waiting(picture: &Picture, style: Style) -> Vec<String> {
    if picture.waiting.is_empty() {
        return Vec::new();
    }
    let head = format!("no Cell: {}", count(picture.waiting.len(), "instance"));
    let mut lines = vec![style.paint.with(RED, &head)];
    for one in picture.waiting.iter().take(NAMED) {
        let (namespace, name) = &one.name;
        let text = plain(&format!("{namespace}/{name}: {}", one.why));
        for (n, line) in wrap(&text, style.width.saturating_sub(4))
            .iter()
            .enumerate()
        {
            lines.push(format!("{}{line}", if n == 0 { "  " } else { "    " }));
        }
    }
    if picture.waiting.len() > NAMED {
        lines.push(format!("  and {} more", picture.waiting.len() - NAMED));
    }
    lines
}

/// What the signs and, where there are some, the colours mean. No item is broken.
fn legend(colours: &Colours, style: Style) -> Vec<String> {
    let signs = Mark::ALL.map(|mark| (sign(mark, style.unicode), word(mark).to_owned(), None));
    let mut items: Vec<(char, String, Option<&str>)> = signs.into();
    if style.paint.0 {
        let owners = colours.iter().map(|((namespace, process), colour)| {
            let sign = sign(Mark::Running, style.unicode);
            (sign, format!("{namespace}/{process}"), Some(*colour))
        });
        items.extend(owners);
    }
    let mut lines = vec![String::new()];
    let mut used = 0;
    for (sign, word, colour) in items {
        let word = cut(&word, style.width.saturating_sub(2));
        let length = 2 + word.chars().count();
        if used > 0 && used + 2 + length > style.width {
            lines.push(String::new());
            used = 0;
        }
        let sign = sign.to_string();
        let sign = colour.map_or(sign.clone(), |colour| style.paint.with(colour, &sign));
        let line = lines.last_mut().expect("there is always a line");
        if used > 0 {
            line.push_str("  ");
            used += 2;
        }
        *line += &format!("{sign} {word}");
        used += length;
    }
    lines.push("numbers: containers, memory used".into());
    lines
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
