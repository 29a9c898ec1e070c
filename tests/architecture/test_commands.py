"""The commands of the project: `make help` lists every one, and scripts stop at the first fault."""

from __future__ import annotations

import re
import subprocess

from tests.architecture.tree import ROOT, files


def test_make_help_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.split()[0] for line in shown.stdout.splitlines()} == targets
    assert {"run", "test", "test-long", "bench", "lint", "vendor", "clean-demo", "help"} <= targets


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make run" in readme
    assert "make test" in readme


def test_shell_scripts_stop_at_the_first_fault() -> None:
    for script in [*files(ROOT / "deploy"), *files(ROOT / ".ci")]:
        text = script.read_bytes()
        if text.startswith((b"#!/bin/bash", b"#!/usr/bin/env bash")):
            assert re.search(rb"^set -[eE]?uo? ?(-o )?(pipefail)?|^set -[eEuo]+ pipefail", text, re.MULTILINE), script


def test_scripts_parse() -> None:
    for script in [*files(ROOT / "deploy"), *files(ROOT / ".ci")]:
        if script.read_bytes().startswith((b"#!/bin/bash", b"#!/usr/bin/env bash")):
            assert subprocess.run(["bash", "-n", script], check=False).returncode == 0, script
