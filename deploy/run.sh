#!/usr/bin/env bash
# Installs what is missing (Debian packages only when root), then starts Deskyard and its demo. Called by `make run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without root, what is missing is said in one line, and what can run runs.
deploy/apt.sh run || [ $? = 3 ]
deploy/venv.sh run
if [ "$(id -u)" = 0 ]; then
  deploy/libvirt-start.sh || echo "libvirt did not start; Deskyard starts without this machine as a host." >&2
elif [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/libvirt/storage/default.xml" ]; then
  # The demo used this account's own libvirt before; after a restart of the machine nobody else starts it.
  deploy/libvirt-session.sh >/dev/null || echo "This account's libvirt did not start." >&2
fi
exec "${DESKYARD_VENV:-.venv}/bin/python" manage.py run
