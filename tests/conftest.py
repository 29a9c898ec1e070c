"""Fixtures that every test may ask for: lazy, once a run, and failing (never skipping) where a part is missing.

Sockets are closed except loopback, UNIX sockets and the laboratory's own networks (10.77.0.0/16): `--allow-hosts` in
pyproject.toml. Django's fixtures stand in the conftest files of the folders that need them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import effort
from tests.support.prerequisites import (
    REPOSITORY,
    MissingPrerequisite,
    prepare,
    require_program,
    require_root,
    tiny_guest,
)

if TYPE_CHECKING:
    from tests.support.kvm_hosts import KvmHosts


effort.load_profile()

LONGEST = (
    "broker/gallery/test_gallery.py", "journeys/test_round_trip.py", "crash/test_real.py", "deploy/test_run.py",
    "journeys/", "bench/", "crash/", "broker/gallery/", "connectors/kvm/", "connectors/esxi/",
)  # fmt: skip
"""Files that take minutes, longest first: begun last, one would go on long after all others have ended."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the rest in the order that chance gave them."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((rank for rank, part in enumerate(LONGEST) if path.startswith(part)), len(LONGEST))

    items.sort(key=rank)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """A missing prerequisite is an error of one line instead of a stack trace."""
    try:
        yield
    except MissingPrerequisite as missing:
        raise pytest.fail.Exception(str(missing), pytrace=False) from None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """DATABASE_URL of a private PostgreSQL cluster."""
    from tests.support.postgres import private_postgres

    with _clear_errors(), private_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """REDIS_URL of a private server. A test that kills its server takes `tests.support.redis.private_redis` instead."""
    from tests.support.redis import private_redis

    with _clear_errors(), private_redis() as server:
        yield server.url


@pytest.fixture(scope="session")
def tiny_image() -> Path:
    """Folder with the tiny guest."""
    with _clear_errors():
        return tiny_guest()


@pytest.fixture(scope="session")
def server_image() -> Path:
    """The Debian server as a qcow2 image; built once for all checkouts, 70 to 280 s."""
    image = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "golden-server.qcow2"
    with _clear_errors():
        require_root("The Debian server's image (a chroot)")
        prepare("the Debian server", REPOSITORY / "deploy" / "images" / "build-golden.sh", "server", image)
    return image


@pytest.fixture(scope="session")
def rdp_image() -> Path:
    """The Debian server with a desktop over RDP as a qcow2 image; built once for all checkouts, 100 to 360 s."""
    image = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "golden-rdp.qcow2"
    with _clear_errors():
        require_root("The image with a desktop over RDP (a chroot)")
        prepare("the desktop over RDP", REPOSITORY / "deploy" / "images" / "build-golden.sh", "rdp", image)
    return image


@pytest.fixture(scope="session")
def vcsim_binary() -> Path:
    """VMware's own simulator, built from Debian's govmomi; once for all checkouts, 30 to 100 s."""
    folder = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "vcsim"
    with _clear_errors():
        prepare("the witness vcsim", REPOSITORY / "tests" / "witnesses" / "vcsim" / "build.sh", folder)
    return folder / "vcsim"


@pytest.fixture(scope="session")
def system_libvirt() -> str:
    """URI of the machine's own libvirt, running, with network and pool "default".

    Everybody on the machine shares it: give what you define a name of your own, and remove it.
    """
    with _clear_errors():
        require_root("The machine's own libvirt")
        require_program("libvirtd", "libvirt-daemon-system")
        prepare("libvirt", REPOSITORY / "deploy" / "libvirt-start.sh")
    _silence_libvirt()
    return "qemu:///system"


@pytest.fixture(scope="session")
def kvm_hosts(tiny_image: Path) -> Iterator[KvmHosts]:
    """Independent real libvirt hosts: `kvm_hosts.take(2)`. Each starts (in about a second) when first asked for."""
    with _clear_errors():
        require_root("A laboratory of KVM hosts (network namespaces)")
        try:
            from tests.support.kvm_hosts import kvm_hosts_laboratory
        except ModuleNotFoundError as error:
            raise MissingPrerequisite(
                f"Python module {error.name} is missing (Debian package python3-libvirt)"
            ) from None
        _silence_libvirt()
        with kvm_hosts_laboratory(tiny_image) as laboratory:
            yield laboratory


def _silence_libvirt() -> None:
    """libvirt prints its errors on standard error besides raising them."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
