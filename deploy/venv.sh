#!/usr/bin/env bash
# Makes or refreshes the virtual environment. Usage: deploy/venv.sh [run|test]   (test: with requirements-dev.txt)
#
# Does nothing, without asking the network, when the requirement files are the ones it was made from. `$DESKYARD_VENV`
# (default .venv) names the folder. It is made from Debian's own python3, since libvirt's binding comes from Debian and
# fits that interpreter only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-run}
venv=${DESKYARD_VENV:-.venv}
python=${DESKYARD_PYTHON:-/usr/bin/python3}
case $kind in
  run)  files=(requirements.txt) ;;
  test) files=(requirements-dev.txt requirements.txt) ;;
  *) echo "usage: $0 [run|test]" >&2; exit 2 ;;
esac

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9

# The stamp names what is in the environment; one made for the tests serves `run` too.
wanted() { { "$python" --version; realpath "$venv"; cat "$@" requirements.lock deploy/venv.sh; } | sha256sum | cut -d' ' -f1; }
stamp=$venv/.made-from
have=$(cat "$stamp" 2>/dev/null || true)
if [ "$kind" = run ]; then accepted="$(wanted requirements.txt) $(wanted requirements-dev.txt requirements.txt)"
else accepted=$(wanted "${files[@]}"); fi

if [ -z "$have" ] || [[ " $accepted " != *" $have "* ]]; then
  if ! "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Cannot make $venv: $python needs to be Python 3.11 or newer with ensurepip. Install: apt-get install python3-venv" >&2
    exit 1
  fi
  echo "Making $venv from ${files[0]} (once; about half a minute) ..."
  rm -f "$stamp"
  [ -x "$venv/bin/python" ] || "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check -c requirements.lock -r "${files[0]}"
  wanted "${files[@]}" > "$stamp"
fi

# libvirt's and libnbd's bindings: Debian's own, linked file by file so that nothing else of the system leaks in.
# Linked on every run: they may have been installed after the environment was made.
site=$(echo "$venv"/lib/python3.*/site-packages)
for file in /usr/lib/python3/dist-packages/{libvirt.py,libvirtaio.py,libvirt_qemu.py,nbd.py,libvirtmod.*.so,libvirtmod_qemu.*.so,libnbdmod.*.so}; do
  [ -e "$file" ] && ln -sf "$file" "$site/"
done
exit 0
