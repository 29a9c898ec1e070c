#!/usr/bin/env bash
# Makes the witness's virtual environment, once for each set of versions, and prints its folder. Usage: setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cache=${DESKYARD_CACHE:-/var/cache/deskyard}/ntnx
python=${DESKYARD_PYTHON:-/usr/bin/python3}
venv=$cache/$( { "$python" --version; cat requirements.txt; } | sha256sum | cut -c1-16)

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$venv/.whole" ]; then
  echo "Making the environment of Nutanix's client libraries (once; about half a minute) ..." >&2
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check -r requirements.txt >&2
  touch "$venv/.whole"
fi
echo "$venv"
