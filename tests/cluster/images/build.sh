#!/usr/bin/env bash
# Builds the images that real nodes need without a registry, as oci-archives, with buildah, a static busybox and a static etcd.
#
#   build.sh OUTDIR ETCD
#
# pause.oci.tar is what holds a Pod's namespaces; test-app.oci.tar has busybox under all its names (sh, httpd, wget, sleep);
# etcd.oci.tar has the program ETCD. Does nothing when OUTDIR has them all from these very programs and this script.
set -euo pipefail

if [ $# -ne 2 ]; then
	echo "usage: build.sh OUTDIR ETCD" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
busybox=$(command -v busybox)
etcd=$2
wanted=$(cat "${BASH_SOURCE[0]}" "$busybox" "$etcd" | sha256sum | cut -d ' ' -f 1)

made() {
	[ -f "$out/pause.oci.tar" ] && [ -f "$out/test-app.oci.tar" ] && [ -f "$out/etcd.oci.tar" ] && [ "$(cat "$out/.stamp" 2>/dev/null)" = "$wanted" ]
}
if made; then
	exit 0
fi
# Two builders at once would overwrite each other: the second one waits, and then finds the stamp.
exec 9>"$out/.lock"
flock 9
if made; then
	exit 0
fi
echo "Building the images pause, test-app and etcd into $out."

work=$(mktemp -d)
# buildah may leave directories that nobody may write to.
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# Without a daemon, without mounts and with an own store.
image() {
	buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@" >/dev/null
}

# archive NAME: from the directory NAME in $work, with its Dockerfile next to it.
archive() {
	image build --quiet --isolation chroot --format oci --file "$work/$1.Dockerfile" --tag "$1:dev" "$work/$1"
	rm -f "$out/$1.oci.tar"
	image push --quiet "$1:dev" "oci-archive:$out/$1.oci.tar:$1:dev"
}

mkdir -p "$work/pause" "$work/test-app/bin" "$work/test-app/tmp" "$work/test-app/www"
cp "$busybox" "$work/pause/busybox"
cat >"$work/pause.Dockerfile" <<-'END'
	FROM scratch
	COPY busybox /busybox
	USER 65535:65535
	ENTRYPOINT ["/busybox", "tail", "-f", "/dev/null"]
END
archive pause

cp "$busybox" "$work/test-app/bin/busybox"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$work/test-app/bin/$applet"
done
chmod 1777 "$work/test-app/tmp"
echo "test-app" >"$work/test-app/www/index.html"
cat >"$work/test-app.Dockerfile" <<-'END'
	FROM scratch
	COPY . /
	ENV PATH=/bin
	EXPOSE 8080
	CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
END
archive test-app

# Where the image of the etcd project has it.
mkdir -p "$work/etcd/usr/local/bin"
cp "$etcd" "$work/etcd/usr/local/bin/etcd"
cat >"$work/etcd.Dockerfile" <<-'END'
	FROM scratch
	COPY . /
	ENV PATH=/usr/local/bin
	CMD ["etcd"]
END
archive etcd

echo "$wanted" >"$out/.stamp"
