"""Tries a registered hypervisor out and prints a transcript that can be sent to whoever knows more."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from broker.selectors.people import user_named
from broker.services import selftest
from broker.services.errors import Refusal


class Command(BaseCommand):
    help = (
        "Try a registered hypervisor out: signs in and reads. With --scratch TEMPLATE it also clones, snapshots, starts"
        " and deletes a machine of its own. Prints a transcript without secrets; ends with 1 if a step failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("hypervisor", help="its name in Deskyard")
        parser.add_argument("--scratch", metavar="TEMPLATE", default="", help="name or platform id of a template")
        parser.add_argument("--user", default="admin", help="the administrator in whose name (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_named(options["user"])
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}. Name an administrator with --user.")
        self.stdout.write(f"Deskyard selftest of {options['hypervisor']}, {timezone.now():%Y-%m-%d %H:%M} UTC")
        failed = 0
        try:
            for step in selftest.run(actor=user, name=options["hypervisor"], template=options["scratch"]):
                self.stdout.write(f"{'ok    ' if step.is_passed else 'FAILED'} {step.seconds:7.2f} s  {step.name}")
                for line in step.lines:
                    self.stdout.write(f"                    {line}")
                failed += not step.is_passed
        except Refusal as refusal:
            raise CommandError(refusal.message) from refusal
        if failed:
            raise CommandError("A step failed; the transcript says which.")
        self.stdout.write(
            "Everything passed." if options["scratch"] else "Reading works. --scratch TEMPLATE tries more."
        )
