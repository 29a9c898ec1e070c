"""Runs the lab: simulated hypervisors of every maker, on loopback."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from broker.management import simulated


class Command(BaseCommand):
    requires_system_checks = []
    help = (
        "Runs one simulated platform of each maker until Ctrl-C. `make run` does so by itself. What to enter in the"
        " console to register them, and the address of the control port, stand in lab/lab.json of the data folder."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seed", default="1", help="the same seed gives the same world (default: %(default)s)")
        parser.add_argument("--speed", default="1", help="so many virtual seconds a second (default: %(default)s)")
        parser.add_argument("--kind", action="append", default=[], help="only this platform; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        simulated.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        kinds = [part for kind in options["kind"] for part in ("--kind", kind)]
        program = simulated.command("--seed", options["seed"], "--speed", options["speed"], *kinds)
        self.stdout.write(f"The lab keeps its worlds in {simulated.folder()}. Ctrl-C ends it.")
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        os.execv(program[0], program)  # noqa: S606 - no shell; our own program takes this process over
