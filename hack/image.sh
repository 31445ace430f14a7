#!/usr/bin/env bash
# Builds the image: a static binary, then a FROM scratch image with docker, podman or buildah.
#
#   image.sh [NAME:TAG]
#
# With docker or podman the image lands in their store. With buildah it becomes the archive target/image/diego-operator.oci.tar, which
# `ctr -n k8s.io images import` and `podman load` read; BUILDER=buildah asks for that. PROFILE=dev builds a large image quickly, for
# trials only.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${1:-diego-operator:dev}
out=target/image
profile=${PROFILE:-dist}
limit=$((25 * 1000 * 1000))

has() {
	command -v "$1" >/dev/null 2>&1
}

# A docker without its daemon builds nothing.
usable() {
	has "$1" && { [ "$1" != docker ] || docker version >/dev/null 2>&1; }
}

builder=${BUILDER:-}
for candidate in docker podman buildah; do
	[ -n "$builder" ] || ! usable "$candidate" || builder=$candidate
done
if [ -z "$builder" ] || ! has "$builder"; then
	echo "image.sh: there is no ${builder:-docker with its daemon, no podman and no buildah} on PATH. Run hack/setup.sh image, or on Debian: apt-get install --no-install-recommends ${builder:-buildah}" >&2
	exit 1
fi

# --- The binary --------------------------------------------------------------------------------------------------------------

triple=$(uname -m)-unknown-linux-musl
if ! has cargo || ! has rustc; then
	echo "image.sh: there is no 'cargo' on PATH. Install Rust with rustup (https://rustup.rs), then run this again." >&2
	exit 1
fi
if [ ! -d "$(rustc --print target-libdir --target "$triple")" ]; then
	if ! has rustup; then
		echo "image.sh: this Rust has no standard library for $triple, and there is no 'rustup' to add it. Install Rust with rustup (https://rustup.rs), then run this again." >&2
		exit 1
	fi
	rustup target add "$triple"
fi
if ! has musl-gcc; then
	echo "image.sh: there is no musl-gcc, which builds the cryptography for a static binary. On Debian: apt-get install musl-tools" >&2
	exit 1
fi
revision=${DIEGO_REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
DIEGO_REVISION=$revision cargo build --quiet --profile "$profile" --bin diego --target "$triple"

# --- The context -------------------------------------------------------------------------------------------------------------

rm -rf "$out/context"
mkdir -p "$out/context"
built=target/$triple/${profile/#dev/debug}
strip -o "$out/context/diego" "$built/diego"
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
	[ ! -e "$bundle" ] || cp -L "$bundle" "$out/context/ca-certificates.crt"
done
# The test of the image asks how it was built.
echo "$profile" >"$out/profile"
size=$(du -cb "$out/context"/* | tail -n 1 | cut -f 1)
if [ "$profile" = dist ] && [ "$size" -gt "$limit" ]; then
	echo "image.sh: the image has $size bytes, more than the $limit it may have" >&2
	exit 1
fi

# --- The image ---------------------------------------------------------------------------------------------------------------

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
hack/pack.sh "$builder" "$out/context" "$name" "$version" "$revision" "$out/diego-operator.oci.tar"
where="in the store of $builder"
[ "$builder" != buildah ] || where="in $out/diego-operator.oci.tar"
echo "$name: $((size / 1000 / 1000)) MB, $where"
