//! Tells the program which revision it is built from, and by which compiler, for `diego_build_info`.

use std::process::Command;

fn main() {
    // Given by whoever builds what is shipped. Asking git here would compile everything anew after each commit.
    println!("cargo:rerun-if-env-changed=DIEGO_REVISION");
    println!("cargo:rerun-if-changed=build.rs");
    let revision = std::env::var("DIEGO_REVISION").ok();
    let revision = revision.filter(|revision| !revision.trim().is_empty());
    let revision = revision.unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=DIEGO_REVISION={}", revision.trim());

    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output();
    let version = version
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    // `rustc 1.89.0 (29483883e 2025-08-04)`: the second word.
    let version = version.as_deref().and_then(|it| it.split(' ').nth(1));
    println!(
        "cargo:rustc-env=DIEGO_RUSTC={}",
        version.unwrap_or("unknown").trim()
    );
}
