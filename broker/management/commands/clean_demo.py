"""Remove what this installation made on its hypervisors: the desktops of all pools, the demo's template and image."""

from __future__ import annotations

import fcntl
import logging
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.domain.lifecycle import LIVE, State
from broker.management import demo, simulated
from broker.models import Assignment, Desktop, Entitlement, Hypervisor, Installation, Pool, Template
from broker.selectors.people import with_right
from broker.services import brokering, desktops, entitlements, hypervisors, inventory, pools, pump, reconcile, templates
from broker.services.errors import Clash, Refusal
from broker.services.permissions import Right

LIMIT_S = 300
"""How long the hypervisors may take to delete the machines."""
ASK_LIMIT_S = 120
"""How long we wait for an answer: a terminal that nobody watches must not hold a script for ever."""


class Command(BaseCommand):
    requires_system_checks = []
    help = (
        "Removes all desktops and pools of this installation, not only the demo's, and the demo's template. Says first "
        "what goes and what stays, and asks on a terminal; elsewhere it needs --yes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="remove without asking")

    def handle(self, *args: Any, yes: bool, **options: Any) -> None:
        # Without `make run` there is no Redis to nudge through, and none is needed: we do the work ourselves.
        logging.getLogger("broker.services.nudges").setLevel(logging.ERROR)
        call_command("migrate", verbosity=0)
        actor = with_right(Right.ADMINISTER).first()
        if actor is None:
            self.stdout.write("This installation has made nothing yet.")
            return
        with simulated.running():
            self.stdout.write(forecast())
            self.stdout.flush()
            if not yes:
                self._ask()
            try:
                self._remove(actor)
            except Refusal as refusal:
                raise CommandError(refusal.message) from refusal

    def _ask(self) -> None:
        """Returns if a person at this terminal agrees; else raises CommandError. Never waits for ever."""
        if not sys.stdin.isatty():
            raise CommandError("Nothing was removed: nobody can be asked here. With --yes it is not asked.")
        self.stdout.write("Type yes to remove it: ", ending="")
        self.stdout.flush()
        answered, _, _ = select.select([sys.stdin], [], [], ASK_LIMIT_S)
        if not answered or sys.stdin.readline().strip().lower() != "yes":
            raise CommandError("Nothing was removed.")

    def _remove(self, actor: User) -> None:
        count = self._remove_desktops(actor)
        for pool in Pool.objects.all():
            pools.delete_pool(actor=actor, pool_id=pool.pk)
        for template in Template.objects.filter(name__in=(demo.TEMPLATE, simulated.TEMPLATE)):
            templates.remove_template(actor=actor, template_id=template.pk)
        for hypervisor in Hypervisor.objects.filter(name__in=made_by_the_demo()):
            hypervisors.remove_hypervisor(actor=actor, hypervisor_id=hypervisor.pk)
        self._remove_image()
        demo.done_mark().unlink(missing_ok=True)
        self.stdout.write(
            f"Removed {count} desktops, all pools and the demo's template. Accounts stay in {settings.DATA_DIR}."
        )

    def _remove_desktops(self, actor: User) -> int:
        """How many there were. Goes on where an interrupted run stopped."""
        close_pools(actor)
        live = Desktop.objects.filter(state__in=LIVE)
        count = live.count()
        last = time.monotonic() + LIMIT_S
        while live.exists():
            if time.monotonic() > last:
                names = ", ".join(live.values_list("name", flat=True)[:5])
                raise CommandError(f"Not removed within {LIMIT_S} s: {names}. See the console, then try again.")
            for desktop in live.exclude(state=State.RETIRING):
                retire(actor, desktop)
            if is_running():
                time.sleep(1)
            else:
                work()
        return count

    def _remove_image(self) -> None:
        try:
            demo.remove_template(demo.local_libvirt(), str(Installation.objects.get().pk))
        except (demo.NoLibvirt, subprocess.CalledProcessError) as reason:
            self.stderr.write(f"The demo's template was left in libvirt: {reason}")


def made_by_the_demo() -> list[str]:
    """Names of the hypervisors that the demo registers."""
    return [demo.HYPERVISOR, *(platform.name for platform in simulated.platforms())]


def forecast() -> str:
    """What goes and what stays, in words and figures, before anything is touched."""
    live, pools_ = Desktop.objects.filter(state__in=LIVE), Pool.objects.order_by("name")
    held = Assignment.objects.filter(until=None).count()
    other_hypervisors = Hypervisor.objects.exclude(name__in=made_by_the_demo()).count()
    other_templates = Template.objects.exclude(name__in=(demo.TEMPLATE, simulated.TEMPLATE)).count()
    names = ", ".join(pool.name for pool in pools_) or "none"
    return (
        "This goes for ever:\n"
        f"  desktops with their disks: {live.count()}, of them assigned to people: {held}\n"
        f"  pools with their entitlements and requests: {pools_.count()} ({names})\n"
        f"  the template {demo.TEMPLATE} with its image\n"
        f"  from the list of hypervisors: {', '.join(made_by_the_demo())}\n"
        "This stays:\n"
        f"  accounts ({User.objects.count()}), the audit, other hypervisors ({other_hypervisors}) and templates "
        f"({other_templates}), the folder {settings.DATA_DIR}\n"
        "  every machine and image that this installation did not make"
    )


def close_pools(actor: User) -> None:
    """Nobody is given a desktop any more, and nothing is built."""
    for entitlement in Entitlement.objects.all():
        entitlements.withdraw(actor=actor, entitlement_id=entitlement.pk)
    for pool in Pool.objects.all():
        pools.change_pool(
            actor=actor, pool_id=pool.pk, minimum=0, spare=0, maximum=0, delete_budget_per_hour=pools.POOL_LIMIT
        )
        pools.resume_pool(actor=actor, pool_id=pool.pk)


def retire(actor: User, desktop: Desktop) -> None:
    """One step of one desktop towards its end; what cannot be done now is tried again in the next round."""
    try:
        for assignment in desktop.assignments.filter(until=None):
            brokering.release_desktop(actor=actor, desktop_id=desktop.pk, user_id=assignment.user_id)
        desktops.retire_desktop(actor=actor, desktop_id=desktop.pk)
    except Clash:
        return


def is_running() -> bool:
    """Whether `manage.py run` is at work: then its worker does what we order."""
    lock = Path(settings.DATA_DIR) / "run" / "lock"
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def work() -> None:
    """What a worker would do now."""
    for pool_id in Pool.objects.values_list("pk", flat=True):
        reconcile.run(pool_id)
    for hypervisor_id in inventory.due():
        inventory.take(hypervisor_id)
    for hypervisor_id in pump.backlog():
        pump.run(hypervisor_id)
    time.sleep(0.2)
