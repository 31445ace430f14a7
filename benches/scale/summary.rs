//! The figures of all reports of a size, which were measured one part after the other.

use std::path::{Path, PathBuf};

use super::figure::{self, Figure};
use super::machine::Machine;
use crate::support::Failure;

/// Lays the figures of all reports of a size in a directory beside each other.
pub fn of(dir: &Path, size: &str) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Written {
        command: String,
        machine: Machine,
        figures: Vec<Figure>,
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(&format!("scale-{size}")) && name.ends_with(".json")
    });
    files.sort();
    let (mut figures, mut commands, mut on) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let written: Written =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        figures.extend(written.figures);
        commands.push(format!("`{}`", written.command));
        let machine = written.machine.line();
        if !on.contains(&machine) {
            on.push(machine);
        }
    }
    if figures.is_empty() {
        return Err(format!(
            "{} holds no report of SIZE={size}: measure with BENCH_WRITE=1 first",
            dir.display()
        )
        .into());
    }
    let (commands, on) = (commands.join(", "), on.join("; "));
    Ok(format!(
        "Measured by {commands} on {on}.\n\n{}",
        figure::table(&figures)
    ))
}
