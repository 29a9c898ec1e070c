#!/usr/bin/env bash
# Installs what the tests need, then runs pytest. Usage: deploy/test.sh setup | pytest [ARGUMENTS of pytest]
#
# `setup` is idempotent and takes about a second when nothing changed. Built guest images, and the environments of
# witnesses (makers' own libraries), are kept outside the checkout, in $DESKYARD_CACHE (default /var/cache/deskyard), by
# the versions of the packages they are made from, so that fresh clones share them. As many files of tests run at a time
# as there are cores and one more, since tests wait a lot; each has servers and hosts of its own ($DESKYARD_TEST_WORKERS).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DESKYARD_CACHE=${DESKYARD_CACHE:-/var/cache/deskyard}

setup() {
  if [ "$(id -u)" != 0 ]; then
    echo "The tests need root: they install Debian packages, run libvirt and make network namespaces. Try: sudo make test" >&2
    exit 1
  fi
  echo "The tests run as root: they install Debian packages, run libvirt and make network namespaces." >&2
  deploy/apt.sh test
  deploy/venv.sh test
  mkdir -p "$DESKYARD_CACHE"
  deploy/images/build-tiny.sh "$DESKYARD_CACHE/tiny" >/dev/null
  deploy/images/build-golden.sh server "$DESKYARD_CACHE/golden-server.qcow2" >/dev/null
  tests/witnesses/ntnx/setup.sh >/dev/null
  tests/witnesses/vcsim/build.sh "$DESKYARD_CACHE/vcsim" >/dev/null
}

case ${1:-} in
  setup) setup ;;
  pytest) shift; setup; exec "${DESKYARD_VENV:-.venv}/bin/python" -m pytest -n "${DESKYARD_TEST_WORKERS:-$(($(nproc) + 1))}" --dist loadfile \
    --no-loadscope-reorder "$@" ;;
  *) echo "usage: $0 setup | pytest [ARGUMENTS]" >&2; exit 2 ;;
esac
