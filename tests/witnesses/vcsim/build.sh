#!/bin/bash
# Builds the witness `vcsim` from Debian's own govmomi. `build.sh OUTDIR`: leaves OUTDIR/vcsim and OUTDIR/versions.
#
# Nothing is done while `versions` (Debian packages, our sources) is still current. The last line on standard output is the
# binary's absolute path. A build takes 30 to 100 s and no network; a build that fails leaves OUTDIR as it was.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
HERE=$(dirname "$(realpath "$0")"); mkdir -p "$1"; OUT=$(realpath "$1")
PACKAGES=(golang-go golang-github-vmware-govmomi-dev)

exec 9>"$OUT/.lock"; flock 9
command -v /usr/bin/go >/dev/null || { echo "vcsim: go is missing (Debian package golang-go)" >&2; exit 3; }
[ -d /usr/share/gocode/src/github.com/vmware/govmomi/simulator ] \
  || { echo "vcsim: the simulator's sources are missing (Debian package golang-github-vmware-govmomi-dev)" >&2; exit 3; }
versions=$(dpkg-query -W -f '${Package} ${Version}\n' "${PACKAGES[@]}"; cat "$HERE/main.go" "$0" | sha256sum | cut -c1-16)
if [ -x "$OUT/vcsim" ] && [ "$versions" = "$(cat "$OUT/versions" 2>/dev/null)" ]; then echo "$OUT/vcsim"; exit 0; fi

export GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= GOCACHE="$OUT/go-build" GOPROXY=off
new=$(mktemp -d "$OUT/.new.XXXXXX"); trap 'rm -rf "$new"' EXIT
echo "vcsim: building with $(tr '\n' ' ' <<<"$versions")" >&2
(cd "$HERE" && /usr/bin/go build -ldflags='-s -w' -o "$new/vcsim" .) >&2
mv "$new/vcsim" "$OUT/vcsim"
echo "$versions" > "$OUT/versions"
echo "$OUT/vcsim"
