//! What the plugin's check points to is there: each page, and each heading on it.

use std::path::Path;

/// A heading's anchor, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[test]
fn every_page_that_a_check_points_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = Vec::new();
    for folder in ["src/plugin/check", "src/plugin/check/rules"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for part in code.split(".docs(\"").skip(1) {
                links.extend(part.split_once('"').map(|(link, _)| link.to_owned()));
            }
        }
    }
    assert!(links.len() > 30, "only {} links were found", links.len());
    for link in links {
        let (page, heading) = link.split_once('#').unwrap_or((&link, ""));
        let text = std::fs::read_to_string(root.join("docs").join(page));
        let text = text.unwrap_or_else(|error| panic!("docs/{page}: {error}"));
        let mut headings = text.lines().filter(|line| line.starts_with('#'));
        let is_there = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
        assert!(
            heading.is_empty() || is_there,
            "docs/{link}: there is no such heading"
        );
    }
}
