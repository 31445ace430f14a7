#!/usr/bin/env python3
"""Prints the software bill of materials of the program `diego`, as CycloneDX 1.6 JSON.

What is in the binary has the scope "required"; what only made it (build scripts, derive macros) "excluded". Tests and their
crates are not in it. The same Cargo.lock gives the same bytes, but for the time, which SOURCE_DATE_EPOCH sets.
"""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "diego-operator"
TARGETS = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]


def metadata(target):
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def checksums():
    """SHA-256 of each crate, by name and version, from Cargo.lock."""
    blocks = (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]
    found = {}
    for block in blocks:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', block, re.M))
        found[fields["name"], fields["version"]] = fields.get("checksum")
    return found


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def closure(graph, packages, start, scope, scopes, edges):
    """Notes what `start` and all below it are for; what is needed wins over what only builds."""
    stack = [(start, scope)]
    while stack:
        here, scope = stack.pop()
        if scopes.get(here) in ("required", scope):
            continue
        scopes[here] = scope
        for dep in graph[here]["deps"]:
            kinds = {kind["kind"] for kind in dep["dep_kinds"]} - {"dev"}
            if not kinds:
                continue
            edges.setdefault(here, set()).add(dep["pkg"])
            needed = None in kinds and scope == "required" and not is_macro(packages[dep["pkg"]])
            stack.append((dep["pkg"], "required" if needed else "excluded"))


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, scope, sums):
    entry = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "description": (package["description"] or "").strip(),
        "scope": scope,
        "purl": purl(package),
    }
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    # Older crates write "/" for OR.
    licence = re.sub(r"\s*/\s*", " OR ", package["license"] or "")
    if not licence:
        sys.exit(f"sbom.py: {purl(package)} names no licence")
    entry["licenses"] = [{"expression": licence}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def main():
    packages, scopes, edges = {}, {}, {}
    for target in TARGETS:
        data = metadata(target)
        packages |= {package["id"]: package for package in data["packages"]}
        graph = {node["id"]: node for node in data["resolve"]["nodes"]}
        root = next(id for id in data["workspace_members"] if packages[id]["name"] == PROGRAM)
        closure(graph, packages, root, "required", scopes, edges)
    sums = checksums()
    order = sorted(scopes, key=lambda id: purl(packages[id]))
    program = component(packages[root], "required", sums) | {"type": "application"}
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": [component(packages[id], scopes[id], sums) for id in order if id != root],
        "dependencies": [
            {
                "ref": purl(packages[id]),
                "dependsOn": sorted(purl(packages[dep]) for dep in edges.get(id, ()) if dep in scopes),
            }
            for id in order
        ],
    }
    json.dump(bom, sys.stdout, indent=2)
    print()


main()
