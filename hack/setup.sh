#!/usr/bin/env bash
# Makes a checkout ready: system packages that the build needs, and the servers of the local cluster.
#
# Installs only what is missing, and says so; with nothing missing it is silent and done in a moment.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# --- System packages ---------------------------------------------------------------------------------------------------------

has() {
	command -v "$1" >/dev/null 2>&1
}

missing=()
# The build of etcd's client turns .proto files into Rust; they import google/protobuf/*.proto, which come apart from protoc.
has "${PROTOC:-protoc}" || missing+=(protobuf-compiler)
if [ -z "${PROTOC_INCLUDE:-}" ] && [ ! -f /usr/include/google/protobuf/descriptor.proto ] &&
	[ ! -f "$(dirname "$(command -v "${PROTOC:-protoc}" || echo /usr/bin/protoc)")/../include/google/protobuf/descriptor.proto" ]; then
	missing+=(libprotobuf-dev)
fi
# A linker, and a C compiler for the cryptography.
has cc || missing+=(gcc libc6-dev)
has curl || missing+=(curl)
has python3 || missing+=(python3)
# The tests of presence over TLS make their certificates with it.
has openssl || missing+=(openssl)
# setpriv starts the servers of the local cluster so that none is left behind; flock guards their build.
has setpriv && has flock || missing+=(util-linux)
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
	if ! has apt-get; then
		echo "setup.sh: please install what Debian calls: ${missing[*]}" >&2
		echo "setup.sh: (this script installs packages with apt-get only)" >&2
		exit 1
	fi
	as_root=()
	if [ "$(id -u)" != 0 ]; then
		if ! has sudo; then
			echo "setup.sh: please run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
			exit 1
		fi
		as_root=(sudo)
	fi
	echo "Installing ${missing[*]}."
	"${as_root[@]}" apt-get update -q
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# --- Rust --------------------------------------------------------------------------------------------------------------------

if ! has cargo; then
	echo "setup.sh: there is no 'cargo' on PATH. Install Rust with rustup (https://rustup.rs), then run this again." >&2
	exit 1
fi

# --- Servers of the local cluster --------------------------------------------------------------------------------------------

# Whether a server is there without a build: in KUBEBUILDER_ASSETS, else on PATH.
given() {
	[ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ] || has "$1"
}

build=()
for server in etcd etcdctl kube-apiserver kube-controller-manager kubectl; do
	given "$server" || build+=("$server")
done
# An old kubectl on PATH does not fit the servers that are built here.
if [[ " ${build[*]} " == *" kube-apiserver "* && " ${build[*]} " != *" kubectl "* ]]; then
	build+=(kubectl)
fi
if [ ${#build[@]} -eq 0 ]; then
	exit 0
fi
if ! has go && given etcd && given kube-apiserver; then
	# The usual set of KUBEBUILDER_ASSETS, enough for clusters without garbage collection.
	echo "setup.sh: without Go, these cannot be built: ${build[*]}. Tests that need them will fail." >&2
	exit 0
fi
exec "$root/tests/cluster/tools/build.sh" "${DIEGO_TOOLS_DIR:-$root/.tools/bin}" "${build[@]}"
