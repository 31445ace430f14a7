#!/usr/bin/env bash
# Packs what image.sh has built as an image, by the Dockerfile.
#
#   pack.sh BUILDER CONTEXT NAME:TAG VERSION REVISION [ARCHIVE]
#
# With docker or podman the image lands in their store. buildah writes it to ARCHIVE, an oci-archive, by a store of its own beside it.
set -euo pipefail

if [ $# -lt 5 ] || [ $# -gt 6 ]; then
	echo "usage: pack.sh docker|podman|buildah CONTEXT NAME:TAG VERSION REVISION [ARCHIVE]" >&2
	exit 2
fi
builder=$1 context=$2 name=$3 version=$4 revision=$5 archive=${6:-}
dockerfile=$(dirname "${BASH_SOURCE[0]}")/../Dockerfile
arguments=(--file "$dockerfile" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$name" "$context")

case $builder in
docker | podman)
	"$builder" build --quiet "${arguments[@]}" >/dev/null
	;;
buildah)
	if [ -z "$archive" ]; then
		echo "pack.sh: name the archive that buildah is to write" >&2
		exit 2
	fi
	# Without a daemon, without mounts and in a store of its own: it works inside containers too.
	own=$(cd "$(dirname "$archive")" && pwd)
	buildah() { command buildah --storage-driver vfs --root "$own/storage" --runroot "$own/run" "$@"; }
	buildah build --quiet --isolation chroot --format oci "${arguments[@]}" >/dev/null
	rm -f "$archive"
	buildah push --quiet "$name" "oci-archive:$archive:$name" >/dev/null
	;;
*)
	echo "pack.sh: $builder is none of docker, podman and buildah" >&2
	exit 2
	;;
esac
