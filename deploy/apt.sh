#!/usr/bin/env bash
# Installs what is missing of deploy/packages-run.txt, with `test` also of packages-test.txt. Usage: deploy/apt.sh run|test
#
# Asks neither apt nor the network when nothing is missing. Exit status 3: something is missing and we are not root, or this
# is no Debian; one line on standard error then says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

lists=(packages-run.txt)
[ "${1:-run}" = test ] && lists+=(packages-test.txt)
mapfile -t wanted < <(sed 's/#.*//' "${lists[@]}" | grep -o '[^[:space:]]\+')

command -v dpkg-query >/dev/null || { echo "deploy/apt.sh: no Debian here. Install by hand what stands in: ${lists[*]}" >&2; exit 3; }
installed=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/ ii $//p') || true
missing=()
for package in "${wanted[@]}"; do grep -qxF "$package" <<<"$installed" || missing+=("$package"); done
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
  echo "Missing packages. As root: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 3
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}" >&2
install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null >"$log" 2>&1
}
log=$(mktemp)
# The lists of a fresh machine are empty or old: then they are fetched, and it is tried once more.
if ! install; then
  apt-get update -qq -o DPkg::Lock::Timeout=300 </dev/null >&2
  install || { cat "$log" >&2; echo "deploy/apt.sh: apt-get could not install: ${missing[*]}" >&2; exit 1; }
fi
rm -f "$log"
