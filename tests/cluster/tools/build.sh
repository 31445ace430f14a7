#!/usr/bin/env bash
# Builds the servers and clients of the local cluster from the Go modules that go.mod, helm/go.mod and dns/go.mod pin.
#
#   build.sh OUTDIR [PROGRAM...]
#
# The programs are etcd, etcdctl, kube-apiserver, kube-controller-manager and kubectl, which are built if none is named; and for
# real nodes kube-scheduler, kubelet, kube-proxy, helm and coredns. Does nothing for those in OUTDIR that these files have made.
set -euo pipefail

if [ $# -lt 1 ]; then
	echo "usage: build.sh OUTDIR [PROGRAM...]" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
if [ $# -eq 0 ]; then
	set -- etcd etcdctl kube-apiserver kube-controller-manager kubectl
fi
cd "$(dirname "${BASH_SOURCE[0]}")"

package() {
	case $1 in
	etcd) echo go.etcd.io/etcd/server/v3 ;;
	etcdctl) echo go.etcd.io/etcd/etcdctl/v3 ;;
	kube-apiserver | kube-controller-manager | kubectl | kube-scheduler | kubelet | kube-proxy) echo "k8s.io/kubernetes/cmd/$1" ;;
	helm) echo helm.sh/helm/v3/cmd/helm ;;
	coredns) echo . ;;
	*)
		echo "build.sh: there is no program $1" >&2
		return 1
		;;
	esac
}

# The directory of the module that a program belongs to.
module() {
	case $1 in
	helm) echo helm ;;
	coredns) echo dns ;;
	*) echo . ;;
	esac
}
# What a program's stamp must say: the files that decide what is built.
wanted() {
	local dir files
	dir=$(module "$1")
	files=("$dir/go.mod" "$dir/go.sum" build.sh)
	[ "$1" != coredns ] || files+=("$dir/main.go")
	cat "${files[@]}" | sha256sum | cut -d ' ' -f 1
}
# Each program has its stamp, written when it is built.
stamp() {
	echo "$out/.$1.stamp"
}
outdated=()
find_outdated() {
	local program
	outdated=()
	for program in "$@"; do
		package "$program" >/dev/null
		if [ ! -x "$out/$program" ] || [ ! -f "$(stamp "$program")" ] || [ "$(<"$(stamp "$program")")" != "$(wanted "$program")" ]; then
			outdated+=("$program")
		fi
	done
}
find_outdated "$@"
if [ ${#outdated[@]} -eq 0 ]; then
	exit 0
fi

# Two builders at once would only double the work: the second one waits, and then finds the stamps.
exec 9>"$out/.lock"
flock 9
find_outdated "$@"
if [ ${#outdated[@]} -eq 0 ]; then
	exit 0
fi

needed=$(awk '$1 == "go" { print $2 }' go.mod helm/go.mod dns/go.mod | sort -V | tail -n 1)
remedy="Install Go $needed or newer, or point KUBEBUILDER_ASSETS at a directory with etcd and kube-apiserver."
if ! command -v go >/dev/null; then
	echo "build.sh: the Go tool chain is missing: there is no 'go' on PATH. $remedy" >&2
	exit 1
fi
# The version that is installed, not one that Go would fetch because go.mod asks for it.
have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
older=$(printf '%s\n%s\n' "$needed" "${have#go}" | sort -V | head -n 1)
# Go 1.21 and newer can fetch a newer tool chain on their own, unless forbidden: so an old one is asked before it is refused.
if [ "$older" != "$needed" ] && ! go list -m >/dev/null 2>&1; then
	echo "build.sh: the installed ${have:-go} is too old. $remedy" >&2
	exit 1
fi

kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' go.mod)
minor=${kubernetes#v1.}
minor=${minor%%.*}
version=k8s.io/component-base/version
# Without these the servers call themselves v0.0.0, which kubectl and version checks refuse.
ldflags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor"
# helm has an own version, and assumes that of Kubernetes where it asks no server (helm lint, helm template).
helm=$(awk '$1 == "helm.sh/helm/v3" { print $2; exit }' helm/go.mod)
for assumed in pkg/lint/rules pkg/chartutil; do
	ldflags+=" -X helm.sh/helm/v3/$assumed.k8sVersionMajor=1 -X helm.sh/helm/v3/$assumed.k8sVersionMinor=$minor"
done
ldflags+=" -X helm.sh/helm/v3/internal/version.version=$helm"

echo "Building ${outdated[*]} (Kubernetes $kubernetes) into $out."
echo "On two cores, the first time: the servers and kubectl five minutes, what real nodes need three more, helm three, coredns two; later seconds."
for program in "${outdated[@]}"; do
	started=$SECONDS
	printf '  %s ...' "$program"
	# Static, and renamed into place: a running copy stays as it is, and a broken-off build leaves nothing that looks whole.
	CGO_ENABLED=0 go build -C "$(module "$program")" -mod=readonly -buildvcs=false -trimpath -ldflags "$ldflags" \
		-o "$out/.$program.new" "$(package "$program")"
	mv -f "$out/.$program.new" "$out/$program"
	wanted "$program" >"$(stamp "$program")"
	echo " $((SECONDS - started)) s"
done
