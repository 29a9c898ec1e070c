"""Set up the demo: two people, this machine's libvirt with a tiny image and a pool of two spare desktops, the lab's
simulated platforms, and one pool over all makers."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.domain.lifecycle import State
from broker.management import demo, simulated
from broker.models import Hypervisor, Installation, Machine, Operation, Pool, Template, TemplateCopy
from broker.models.operations import UNFINISHED
from broker.services import bootstrap, entitlements, hypervisors, pools, templates
from broker.services.pools import MemberWish

LOOK_LIMIT_S = 180
"""How long a worker may take to sign in at this machine's libvirt and list the template."""
FILL_LIMIT_S = 180
"""How long we watch the pool being filled; it goes on without us."""
SPARE, MAXIMUM = 2, 10
ABOUT = {
    demo.TEMPLATE: "A Linux with a shell that starts in seconds. Files in /mnt last as long as the desktop is yours.",
    simulated.TEMPLATE: "No machine at all: the lab's picture of one, which boots, has an address and shows a screen.",
}


class Command(BaseCommand):
    requires_system_checks = []
    help = "Sets up the demo; needs a running worker. Idempotent: what is there already is left as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--people-only", action="store_true", help="only the accounts admin and demo")

    def handle(self, *args: Any, people_only: bool, **options: Any) -> None:
        done = demo.done_mark()
        administrator, user = people()
        if people_only or done.exists():
            return
        copies, trouble = [], ""
        try:
            copies.append(self._fill(administrator, user))
        except (demo.NoLibvirt, subprocess.CalledProcessError) as reason:
            trouble = f"No demo desktops on this machine: {reason}"
        except CommandError as reason:
            trouble = str(reason)
        if settings.WITH_LAB:
            self._add_lab(administrator, user, copies)
        if trouble:
            raise CommandError(trouble)
        done.touch()

    def _fill(self, administrator: User, user: User) -> TemplateCopy:
        libvirt = demo.local_libvirt()
        self._say("Building the image of the tiny guest (some 20 s, once) ...")
        image = demo.build_image()
        installation = str(Installation.objects.get().pk)
        machine_id = demo.make_template(libvirt, installation, image)
        hypervisor = register(administrator, libvirt)
        self._say("Waiting until a worker has looked at this machine's libvirt ...")
        copy = link(administrator, seen(hypervisor, machine_id))
        pool = make_pool(administrator, copy)
        entitlements.entitle(actor=administrator, pool_id=pool.pk, user_id=user.pk)
        self._say(f"The pool {pool} is being filled with {pool.spare} desktops; the console shows how they get on ...")
        count = ready(pool)
        self._say(f"{count} desktops are ready." if count else f"No desktop is ready yet. {trouble(pool)}")
        return copy

    def _add_lab(self, administrator: User, user: User, copies: list[TemplateCopy]) -> None:
        """The simulated platforms, and a pool over them and this machine's libvirt, if that can be used."""
        platforms = simulated.platforms(LOOK_LIMIT_S)
        if not platforms:
            self._say(f"The lab did not start; see {settings.DATA_DIR / 'log' / 'lab.log'}.")
            return
        self._say(f"Registering {len(platforms)} simulated platforms ...")
        found = [(platform, register_simulated(administrator, platform)) for platform in platforms]
        copies += [
            link(administrator, seen(hypervisor, platform.template), simulated.TEMPLATE)
            for platform, hypervisor in found
        ]
        pool = make_pool_of_all(administrator, copies)
        entitlements.entitle(actor=administrator, pool_id=pool.pk, user_id=user.pk)
        count = ready(pool)
        makers = pool.desktops.filter(state=State.READY).values("hypervisor__kind").distinct().count()
        self._say(
            f"The pool {pool} has {count} desktops ready, on platforms of {makers} makers. {trouble(pool, count)}"
        )

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def people() -> tuple[User, User]:
    """admin and demo. A password that the operator names is theirs from now on; otherwise what they have stays."""
    password = demo.password()
    found = []
    for name, is_administrator in ((demo.ADMINISTRATOR, True), (demo.USER, False)):
        user, _ = bootstrap.ensure_account(name=name, password=password, is_administrator=is_administrator)
        if settings.DEMO_PASSWORD:
            bootstrap.reset_password(user=user, password=password)
        found.append(user)
    return found[0], found[1]


def register(administrator: User, libvirt: demo.Libvirt) -> Hypervisor:
    """This machine's libvirt as a hypervisor. One that was refused or lost before is looked at again at once."""
    hypervisor = Hypervisor.objects.filter(name=demo.HYPERVISOR).first()
    if hypervisor is not None:
        return hypervisors.recheck_hypervisor(actor=administrator, hypervisor_id=hypervisor.pk)
    values = {"transport": "local", "socket": libvirt.socket}
    return hypervisors.register_hypervisor(actor=administrator, name=demo.HYPERVISOR, kind="kvm", values=values)


def register_simulated(administrator: User, platform: simulated.Simulated) -> Hypervisor:
    """A platform of the lab as a hypervisor, like any other."""
    hypervisor = Hypervisor.objects.filter(name=platform.name).first()
    if hypervisor is not None:
        return hypervisors.recheck_hypervisor(actor=administrator, hypervisor_id=hypervisor.pk)
    return hypervisors.register_hypervisor(
        actor=administrator, name=platform.name, kind=platform.kind, values=dict(platform.values)
    )


def seen(hypervisor: Hypervisor, machine_id: str) -> Machine:
    """The template as a worker's inventory saw it. After a while raises CommandError with the hypervisor's reason."""
    last = time.monotonic() + LOOK_LIMIT_S
    while time.monotonic() < last:
        hypervisor.refresh_from_db()
        machine = Machine.objects.filter(hypervisor=hypervisor, platform_id=machine_id, is_template=True).first()
        missing = what_is_missing(hypervisor, machine)
        if machine is not None and not missing:
            return machine
        time.sleep(0.5)
    raise CommandError(f"No demo desktops yet: {missing}")


def what_is_missing(hypervisor: Hypervisor, machine: Machine | None) -> str:
    """Why desktops cannot be built yet, in words; empty if they can."""
    if hypervisor.status == Hypervisor.Status.NEW:
        return "no worker has looked at this machine's libvirt. Is one running?"
    if hypervisor.status != Hypervisor.Status.UP:
        return f"{hypervisor} is {hypervisor.get_status_display().lower()}. {hypervisor.status_reason}"
    if machine is None:
        return "libvirt's listing does not show the template."
    if is_being_probed(hypervisor):
        return "it is still being found out whether hardware acceleration works."
    return ""


def is_being_probed(hypervisor: Hypervisor) -> bool:
    """Whether it is still being found out if hardware acceleration works; desktops built before might hang."""
    return hypervisor.operations.filter(kind=Operation.Kind.PROBE, state__in=UNFINISHED).exists()


def link(administrator: User, machine: Machine, name: str = demo.TEMPLATE) -> TemplateCopy:
    """A template of the demo with one version, of which this machine is a copy."""
    copy = TemplateCopy.objects.filter(hypervisor=machine.hypervisor, platform_id=machine.platform_id).first()
    if copy is not None:
        return copy
    template = Template.objects.filter(name=name).first() or templates.create_template(
        actor=administrator, name=name, description=ABOUT[name], os="Linux"
    )
    version = template.versions.first() or templates.add_version(actor=administrator, template_id=template.pk)
    return templates.link_copy(actor=administrator, version_id=version.pk, machine_id=machine.pk)


def ready(pool: Pool) -> int:
    """How many desktops are ready, as soon as the spare ones are or after a while."""
    last = time.monotonic() + FILL_LIMIT_S
    found = pool.desktops.filter(state=State.READY)
    while found.count() < pool.spare and time.monotonic() < last:
        time.sleep(0.5)
    return found.count()


def trouble(pool: Pool, count: int = 0) -> str:
    """The newest reason, in words, why desktops are not ready; "See the console." if nothing has failed."""
    if count >= pool.spare:
        return ""
    failed = Operation.objects.filter(desktop__pool=pool, state=Operation.State.FAILED).order_by("-finished_at")
    return failed.values_list("error", flat=True).first() or "See the console."


def make_pool_of_all(administrator: User, copies: list[TemplateCopy]) -> Pool:
    return Pool.objects.filter(name=simulated.POOL).first() or pools.create_pool(
        actor=administrator,
        members=[MemberWish(copy_id=copy.pk, minimum=1) for copy in copies],
        name=simulated.POOL,
        description="One pool over hypervisors of every maker. All but this machine's are simulated.",
        naming="maker-###",
        spare=len(copies),
        maximum=MAXIMUM * len(copies),
    )


def make_pool(administrator: User, copy: TemplateCopy) -> Pool:
    return Pool.objects.filter(name=demo.POOL).first() or pools.create_pool(
        actor=administrator,
        members=[MemberWish(copy_id=copy.pk)],
        name=demo.POOL,
        description="Try it: request a desktop and type into it.",
        naming="tiny-###",
        spare=SPARE,
        maximum=MAXIMUM,
    )
