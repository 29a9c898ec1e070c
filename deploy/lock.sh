#!/usr/bin/env bash
# Resolves requirements-dev.txt anew in a scratch environment and writes every version it finds to requirements.lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
/usr/bin/python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check -r requirements-dev.txt
{
  echo '# Every package with its version, as resolved from requirements-dev.txt. Made by `make lock`; pip reads it as constraints.'
  "$scratch/venv/bin/python" -m pip freeze --disable-pip-version-check
} > requirements.lock
