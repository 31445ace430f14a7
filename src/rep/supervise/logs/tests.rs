//! Rotation, whole lines, and files that can't be written.

use super::*;
use std::os::unix::fs::symlink;

fn log(dir: &Path, limit: u64) -> LogFile {
    LogFile::new(dir, "out", limit)
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

fn written(limit: u64, pieces: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = log(dir.path(), limit);
    for piece in pieces {
        log.write(piece.as_bytes()).expect("written");
    }
    (read(dir.path(), "out.1"), read(dir.path(), "out"))
}

#[test]
fn files_rotate_between_lines() {
    for (limit, pieces, old, new) in [
        (8, &["abc\n", "def\n"][..], "", "abc\ndef\n"),
        (8, &["abc\n", "def\n", "x"], "abc\ndef\n", "x"),
        // Three lines at once: the third goes to the next file.
        (8, &["abc\ndef\nghi\n"], "abc\ndef\n", "ghi\n"),
        // The line that has begun moves on whole.
        (8, &["abc\n", "de", "fgh\n"], "abc\n", "defgh\n"),
        // Only the newest two files are kept.
        (4, &["abc\n", "def\n", "ghi\n"], "def\n", "ghi\n"),
        // A line longer than the limit is split.
        (4, &["abcdefgh", "ij\n"], "efgh", "ij\n"),
        (4, &["a\nbcdefgh\n"], "bcde", "fgh\n"),
    ] {
        assert_eq!(
            written(limit, pieces),
            (old.to_owned(), new.to_owned()),
            "{pieces:?}"
        );
    }
}

#[test]
fn nothing_is_changed_and_nothing_is_kept_beyond_two_files() {
    let limit = 1000;
    // Lines of 0 to 36 bytes, in pieces that have nothing to do with them.
    let text: String = (0..20_000)
        .map(|i| format!("{i} {}\n", "x".repeat(i % 31)))
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = log(dir.path(), limit);
    for (i, piece) in text.as_bytes().chunks(777).enumerate() {
        log.write(piece).expect("written");
        for name in ["out", "out.1"] {
            let length = fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
            assert!(length <= limit, "{name} has {length} bytes after piece {i}");
        }
    }
    let (old, new) = (read(dir.path(), "out.1"), read(dir.path(), "out"));
    assert!(old.ends_with('\n') && old.len() > 900, "{old}");
    assert!(text.ends_with(&(old + &new)));
}

#[test]
fn a_line_of_ten_megabytes_is_split_and_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let limit = 1 << 20;
    let line = vec![b'x'; 10 << 20];
    pump(&line[..], log(dir.path(), limit), |why| {
        panic!("lost: {why}")
    });
    for name in ["out", "out.1"] {
        assert_eq!(read(dir.path(), name).len(), 1 << 20, "{name}");
    }
}

#[test]
fn an_earlier_file_is_continued() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("out"), "abc\n").expect("written");
    log(dir.path(), 6).write(b"def\n").expect("written");
    assert_eq!(read(dir.path(), "out.1"), "abc\n");
    assert_eq!(read(dir.path(), "out"), "def\n");
}

#[test]
fn a_full_disk_blocks_nobody_and_is_told_once() {
    let dir = tempfile::tempdir().expect("a directory");
    // The kernel's own full disk.
    symlink("/dev/full", dir.path().join("out")).expect("linked");
    let mut told = Vec::new();
    let text = vec![b'x'; 10 * BUFFER];
    pump(&text[..], log(dir.path(), 1 << 20), |why| told.push(why));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("No space left on device"), "{told:?}");
}

#[test]
fn what_was_dropped_is_marked_once_there_is_room_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("out");
    fs::create_dir(&path).expect("made");
    let mut log = log(dir.path(), 1 << 20);
    log.write(b"one\n").expect_err("a directory");
    log.write(b"two\n").expect_err("still");
    fs::remove_dir(&path).expect("removed");
    log.write(b"three\n").expect("written");
    let text = read(dir.path(), "out");
    assert!(
        text.starts_with("diego: 8 bytes of output were dropped here: "),
        "{text}"
    );
    assert!(text.ends_with("\nthree\n"), "{text}");
}
