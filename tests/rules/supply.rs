//! What the program is made of: the bill of materials is whole, and says what Cargo.lock says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bill() -> Vec<u8> {
    let output = Command::new("python3")
        .arg(root().join("hack/sbom.py"))
        .env("SOURCE_DATE_EPOCH", "0")
        .output()
        .expect("this test needs python3 on PATH");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// Checksums by name and version, as Cargo.lock has them.
fn locked() -> BTreeMap<(String, String), String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let mut found = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let start = format!("{name} = \"");
            let line = block.lines().find_map(|line| line.strip_prefix(&start));
            line.map(|rest| rest.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    let text = value[field].as_str();
    text.unwrap_or_else(|| panic!("{field} of {value}"))
}

#[test]
fn the_bill_of_materials_is_whole() {
    let bytes = bill();
    assert_eq!(bytes, bill(), "the same tree gives the same bill");
    let bom: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(text(&bom, "bomFormat"), "CycloneDX");
    assert_eq!(
        text(&bom["metadata"]["component"], "name"),
        "diego-operator"
    );
    let components = bom["components"].as_array().expect("a list");
    let locked = locked();
    let mut refs = BTreeSet::from([text(&bom["metadata"]["component"], "bom-ref")]);
    let mut scopes = BTreeMap::new();
    for component in components {
        let (name, version) = (text(component, "name"), text(component, "version"));
        let checksum = &locked[&(name.to_owned(), version.to_owned())];
        assert_eq!(text(&component["hashes"][0], "content"), checksum, "{name}");
        let licence = text(&component["licenses"][0], "expression");
        assert!(
            !licence.is_empty() && !licence.contains('/'),
            "{name}: {licence}"
        );
        assert!(
            refs.insert(text(component, "bom-ref")),
            "{name} is there twice"
        );
        scopes.insert(name, text(component, "scope"));
    }
    for (name, scope) in [
        ("tokio", Some("required")),
        ("kube-client", Some("required")),
        ("rustls", Some("required")),
        ("syn", Some("excluded")),
        ("prost-build", Some("excluded")),
        // Only tests have it.
        ("proptest", None),
        ("rcgen", None),
    ] {
        assert_eq!(scopes.get(name).copied(), scope, "{name}");
    }
    let dependencies = bom["dependencies"].as_array().expect("a list");
    assert_eq!(dependencies.len(), refs.len());
    for dependency in dependencies {
        assert!(refs.contains(text(dependency, "ref")));
        for on in dependency["dependsOn"].as_array().expect("a list") {
            assert!(refs.contains(on.as_str().expect("a reference")), "{on}");
        }
    }
}
