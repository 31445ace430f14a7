#!/usr/bin/env bash
# Makes a checkout ready: system packages that the build needs, and the servers of the local cluster.
#
#   setup.sh        what the build, the demo and all tests but the end-to-end ones need
#   setup.sh e2e    also what real nodes need: containerd, kubelet, helm, CoreDNS, and some images; what checks the chart; and docker,
#                   podman and buildah, all of which must build the image
#   setup.sh image  only what the image needs: the build, a static C library, and buildah where there is no docker or podman
#
# Installs only what is missing, and says so; with nothing missing it is silent and done in a moment. No daemon is started.
set -euo pipefail

e2e= image=
case "$#:${1:-}" in
0:) ;;
1:e2e) e2e=yes image=yes ;;
1:image) image=yes ;;
*)
	echo "usage: setup.sh [e2e|image]" >&2
	exit 2
	;;
esac

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
if [ -z "$image" ] || [ -n "$e2e" ]; then
	has curl || missing+=(curl)
	has python3 || missing+=(python3)
	# The tests of presence over TLS make their certificates with it.
	has openssl || missing+=(openssl)
	# setpriv starts the servers of the local cluster so that none is left behind; flock guards their build.
	has setpriv && has flock || missing+=(util-linux)
	# Often only root's PATH has these directories.
	PATH=$PATH:/usr/sbin:/sbin
	# Rows of the fault matrix drop packets on a cable of their own; real nodes have their network and Services by them.
	has iptables || missing+=(iptables)
	has ip || missing+=(iproute2)
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing+=(ca-certificates)
if [ -n "$image" ]; then
	# musl-gcc helps with a static binary, strip makes it small.
	has musl-gcc || missing+=(musl-tools)
	has strip || missing+=(binutils)
	# The end-to-end tests read the image as an archive, which buildah writes. A docker without its daemon builds nothing.
	if [ -n "$e2e" ] || ! { has podman || { has docker && docker version >/dev/null 2>&1; }; }; then
		has buildah || missing+=(buildah)
	fi
fi
# Whether busybox is there and runs in an image that has nothing else.
static_busybox() {
	has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}
if [ -n "$e2e" ]; then
	# containerd, with its ctr, and runc start the nodes' containers; the plugins connect them.
	has containerd && has ctr || missing+=(containerd)
	has runc || missing+=(runc)
	cni=
	for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni /usr/local/libexec/cni; do
		[ ! -e "$dir/bridge" ] || cni=$dir
	done
	[ -n "$cni" ] || missing+=(containernetworking-plugins)
	has unshare && has nsenter || missing+=(util-linux)
	# All that the test's Pods run.
	static_busybox || missing+=(busybox-static)
	# The image is built by these too; the test starts dockerd for itself.
	has podman || missing+=(podman)
	has docker && has dockerd || missing+=(docker.io)
	# The chart's alerts are checked by promtool.
	has promtool || missing+=(prometheus)
fi

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
	# Somebody else may be installing: their turn first.
	apt=(apt-get -o DPkg::Lock::Timeout=300)
	"${as_root[@]}" "${apt[@]}" update -q
	# The tests start what they need: no package may become a service of this machine, neither now nor at its next start.
	policy=/usr/sbin/policy-rc.d ours=
	if [ ! -e "$policy" ]; then
		ours=$policy
		trap '"${as_root[@]}" rm -f "$ours"' EXIT
		printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
		"${as_root[@]}" chmod 755 "$policy"
	fi
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -q -y --no-install-recommends "${missing[@]}"
	for package in containerd prometheus podman docker.io; do
		if [[ " ${missing[*]} " == *" $package "* ]] && [ -d /run/systemd/system ]; then
			units=("${package%.io}.service")
			case $package in
			podman) units+=(podman.socket podman-restart.service podman-auto-update.service podman-auto-update.timer) ;;
			docker.io) units+=(docker.socket) ;;
			esac
			"${as_root[@]}" systemctl disable --quiet "${units[@]}"
		fi
	done
	if [ -n "$ours" ]; then
		"${as_root[@]}" rm -f "$ours"
		trap - EXIT
	fi
fi

# --- Rust --------------------------------------------------------------------------------------------------------------------

if ! has cargo; then
	echo "setup.sh: there is no 'cargo' on PATH. Install Rust with rustup (https://rustup.rs), then run this again." >&2
	exit 1
fi

if [ -n "$image" ]; then
	triple=$(uname -m)-unknown-linux-musl
	if [ ! -d "$(rustc --print target-libdir --target "$triple")" ]; then
		if ! has rustup; then
			echo "setup.sh: this Rust has no standard library for $triple, and there is no 'rustup' to add it. Install Rust with rustup (https://rustup.rs), then run this again." >&2
			exit 1
		fi
		rustup target add "$triple"
	fi
fi
if [ -n "$image" ] && [ -z "$e2e" ]; then
	exit 0
fi

# --- Servers of the local cluster --------------------------------------------------------------------------------------------

# Whether a server is there without a build: in KUBEBUILDER_ASSETS, else on PATH.
given() {
	[ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ] || has "$1"
}

servers=(etcd etcdctl kube-apiserver kube-controller-manager kubectl)
if [ -n "$e2e" ]; then
	servers+=(kube-scheduler kubelet kube-proxy helm coredns)
fi
build=()
for server in "${servers[@]}"; do
	# The image of etcd needs a static one.
	if ! given "$server" || [ "$e2e:$server" = yes:etcd ]; then
		build+=("$server")
	fi
done
# An old kubectl on PATH does not fit the servers that are built here.
if [[ " ${build[*]} " == *" kube-apiserver "* && " ${build[*]} " != *" kubectl "* ]]; then
	build+=(kubectl)
fi
tools=${DIEGO_TOOLS_DIR:-$root/.tools/bin}
if [ ${#build[@]} -gt 0 ]; then
	if ! has go && [ -z "$e2e" ] && given etcd && given kube-apiserver; then
		# The usual set of KUBEBUILDER_ASSETS, enough for clusters without garbage collection.
		echo "setup.sh: without Go, these cannot be built: ${build[*]}. Tests that need them will fail." >&2
		exit 0
	fi
	"$root/tests/cluster/tools/build.sh" "$tools" "${build[@]}"
fi
if [ -n "$e2e" ]; then
	"$root/tests/cluster/images/build.sh" "$tools/images" "$tools/etcd"
	"$root/tests/cluster/tools/chart/build.sh" "$tools"
fi
