//! Which Cells gave a piece of work back, so that its next auctions go elsewhere while they can.

/// So many Cells are remembered; the CRDs allow no more.
pub const REMEMBERED: usize = 3;

/// `known` after `cell` gave the work back: each Cell once, the last one last.
pub fn by(known: &[String], cell: &str) -> Vec<String> {
    let others = known.iter().filter(|name| *name != cell);
    let mut cells: Vec<String> = others.cloned().collect();
    cells.push(cell.to_owned());
    let forgotten = cells.len().saturating_sub(REMEMBERED);
    cells.split_off(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_each_once_the_last_one_last() {
        let mut known = Vec::new();
        for (cell, expected) in [
            ("a", &["a"][..]),
            ("a", &["a"]),
            ("b", &["a", "b"]),
            ("a", &["b", "a"]),
            ("c", &["b", "a", "c"]),
            ("d", &["a", "c", "d"]),
            ("c", &["a", "d", "c"]),
        ] {
            known = by(&known, cell);
            assert_eq!(known, expected, "{cell}");
        }
    }
}
