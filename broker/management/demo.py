"""The demo of one installation: its people, its image, its template on this machine's libvirt.

libvirt is spoken to only by the programs in deploy/ that are started here, as an administrator would; what stands in
the broker is made by the same services as the console's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User

ADMINISTRATOR, USER = "admin", "demo"
HYPERVISOR, TEMPLATE, POOL = "This machine", "Tiny Linux", "Tiny Linux"
SHARED_IMAGES = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "tiny"
"""Where root keeps the built image, so that several installations build it once."""
SESSION_NEEDS = ("qemu-system-x86_64", "libvirtd", "virsh")
"""Programs with which an account may have a libvirt of its own."""
TOOLS = Path(settings.BASE_DIR) / "deploy"


class NoLibvirt(Exception):
    """This machine cannot host desktops now; `args[0]` says in one line what to do."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a person types to sign in; `password` is empty if it is not the one we gave."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Libvirt:
    """The libvirt of this machine that we may use. `socket` is empty for the system's."""

    uri: str
    socket: str
    network: str
    """Name of its network, empty where guests have user networking."""


def password() -> str:
    """The password that the demo's people get: DESKYARD_DEMO_PASSWORD, else one made once, kept in DATA_DIR (0600)."""
    if settings.DEMO_PASSWORD:
        return str(settings.DEMO_PASSWORD)
    path = Path(settings.DATA_DIR) / "demo.password"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8").strip()
    made = secrets.token_urlsafe(9)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(made)
    return made


def done_mark() -> Path:
    """Exists once the demo has been set up: what administrators change or delete of it is not made again."""
    return Path(settings.DATA_DIR) / "demo.done"


def sign_ins() -> list[SignIn]:
    """The demo's accounts that exist, administrator first."""
    given = password()
    users = {user.username: user for user in User.objects.filter(username__in=(ADMINISTRATOR, USER))}
    return [SignIn(n, given if users[n].check_password(given) else "") for n in (ADMINISTRATOR, USER) if n in users]


def local_libvirt() -> Libvirt:
    """The system's libvirt if we may use it; else, where QEMU is, one of this account's own. Raises `NoLibvirt`."""
    if _answers("qemu:///system"):
        return Libvirt(uri="qemu:///system", socket="", network="default")
    if os.getuid() == 0:
        raise NoLibvirt("No libvirt answers here. deploy/libvirt-start.sh says why; then start again.")
    # Debian keeps libvirtd where an ordinary account's PATH does not look.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [program for program in SESSION_NEEDS if not shutil.which(program, path=path)]:
        # What to install has been said by deploy/apt.sh, before anything was started.
        raise NoLibvirt(f"No libvirt answers here, and this account's own would need {', '.join(missing)}.")
    done = subprocess.run([TOOLS / "libvirt-session.sh"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoLibvirt(f"This account's libvirt does not start: {done.stderr.strip()}")
    socket = done.stdout.strip()
    return Libvirt(uri=f"qemu+unix:///session?socket={socket}", socket=socket, network="")


def build_image() -> Path:
    """The folder of the tiny guest's image, built if it is not there or out of date (about 20 s and 25 MB, once)."""
    place = SHARED_IMAGES if os.getuid() == 0 else Path(settings.PROBE_IMAGE)
    subprocess.run([TOOLS / "images" / "build-tiny.sh", place], check=True, stdout=subprocess.DEVNULL)
    link = Path(settings.PROBE_IMAGE)
    if place != link and not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    return place


def template_name(installation: str) -> str:
    """Of the template in libvirt: each installation has its own, so that none depends on another's."""
    return f"deskyard-tiny-{installation[:8]}"


def make_template(libvirt: Libvirt, installation: str, image: Path) -> str:
    """Define the template in libvirt; its platform id. Idempotent."""
    return _tiny_template(libvirt, installation, "--network", libvirt.network, str(image))


def remove_template(libvirt: Libvirt, installation: str) -> None:
    """Remove the template with its volumes. Idempotent; raises CalledProcessError while a clone hangs from it."""
    _tiny_template(libvirt, installation, "--remove")


def _tiny_template(libvirt: Libvirt, installation: str, *arguments: str) -> str:
    program = [sys.executable, str(TOOLS / "images" / "tiny_template.py"), "--uri", libvirt.uri]
    command = [*program, "--name", template_name(installation), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _answers(uri: str) -> bool:
    if not shutil.which("virsh"):
        return False
    try:
        done = subprocess.run(["virsh", "-q", "-c", uri, "uri"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
