"""The acceleration probe on a real host, whether or not its KVM works."""

from __future__ import annotations

import dataclasses
import gzip
import subprocess
import time
from pathlib import Path

import libvirt
import pytest

from connectors.base import ProbeAcceleration, Probed, Receipt
from connectors.errors import Unsupported
from connectors.kvm import probe
from connectors.kvm.mapping import read_domain
from tests.connectors.contract import do, finish, listing, new_key, poll, refuse, submit
from tests.connectors.kvm.worlds import LibvirtWorld


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same way with an acceleration that does work here."""
    monkeypatch.setattr(probe, "TRIED", "qemu")


def wait_for_guest(real: LibvirtWorld) -> None:
    until = time.monotonic() + 30
    while not leftovers(real):
        assert time.monotonic() < until, "the tiny guest does not start"
        time.sleep(0.05)


def leftovers(real: LibvirtWorld) -> list[str]:
    return [domain.name() for domain in real.conn.listAllDomains() if "probe" in domain.name()]


@pytest.fixture
def silent_image(tiny_image: Path, tmp_path: Path) -> Path:
    """The tiny guest with another `/init`, which starts no agent and does nothing for ever."""
    folder = tmp_path / "silent"
    folder.mkdir()
    init = folder / "init"
    init.write_text("#!/bin/sh\nwhile :; do sleep 3600; done\n")
    init.chmod(0o755)
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], input=b"init\n", cwd=folder, capture_output=True, check=True
    )
    # The kernel unpacks one archive after the other, and the last file of a name stays.
    (folder / "initrd.gz").write_bytes((tiny_image / "initrd.gz").read_bytes() + gzip.compress(packed.stdout))
    (folder / "vmlinuz").symlink_to(tiny_image / "vmlinuz")
    return folder


@pytest.mark.judges("kvm", "real libvirt and QEMU", ProbeAcceleration)
def test_a_machines_own_kvm_is_judged_by_whether_the_agent_answers(real: LibvirtWorld) -> None:
    """What libvirt advertises is not believed: KVM is also in the capabilities of machines whose guests then hang."""
    result = do(real, real.connector(), ProbeAcceleration(key=new_key(), limit_s=3)).result
    assert isinstance(result, Probed)
    assert "KVM" in result.reason
    assert result.acceleration == ("kvm" if "agent answered" in result.reason else "qemu")
    assert not leftovers(real)
    assert not real.litter()


@pytest.mark.usefixtures("emulated")
def test_a_guest_that_runs_and_stays_silent_means_emulation(real: LibvirtWorld, silent_image: Path) -> None:
    connector = real.connector()
    connector.surroundings = dataclasses.replace(connector.surroundings, probe_image=silent_image)
    began = time.monotonic()
    result = do(real, connector, ProbeAcceleration(key=new_key(), limit_s=3)).result
    assert isinstance(result, Probed)
    assert result.acceleration == "qemu"
    assert "silent for 3 s" in result.reason
    assert time.monotonic() - began >= 3, "it had its time"
    assert not leftovers(real)
    assert not real.litter()


def test_a_guest_has_ten_seconds_unless_told_otherwise() -> None:
    """An accelerated one answers in two or three, also on a busy host; an administrator waits for the answer."""
    assert ProbeAcceleration(key=new_key()).limit_s == 10


@pytest.mark.usefixtures("emulated")
def test_a_guest_whose_agent_answers_proves_it(real: LibvirtWorld) -> None:
    result = do(real, real.connector(), ProbeAcceleration(key=new_key(), limit_s=60)).result
    assert isinstance(result, Probed)
    assert result.acceleration == "kvm"
    assert not leftovers(real)
    assert not real.litter()


@pytest.mark.usefixtures("emulated")
def test_the_guest_is_not_listed_as_a_machine(real: LibvirtWorld) -> None:
    connector, order = real.connector(), ProbeAcceleration(key=new_key(), limit_s=60)
    first = submit(connector, [order])[order.key]
    wait_for_guest(real)
    inventory = listing(connector)
    assert order.key not in {machine.id for machine in inventory.machines}
    assert [template.id for template in inventory.templates] == [real.template]
    finish(real, connector, order, first)


@pytest.mark.usefixtures("emulated")
def test_a_probe_whose_receipt_was_lost_is_ended_by_the_next_attempt(real: LibvirtWorld) -> None:
    order = ProbeAcceleration(key=new_key(), limit_s=1)
    submit(real.connector(), [order])
    wait_for_guest(real)
    fresh = real.connector()
    outcome = poll(fresh, [Receipt(order)])[order.key]
    finish(real, fresh, order, outcome)
    assert not leftovers(real)
    assert not real.litter()


def test_a_guest_that_cannot_start_means_emulation(real: LibvirtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TRIED", "xen")
    result = do(real, real.connector(), ProbeAcceleration(key=new_key())).result
    assert isinstance(result, Probed)
    assert result.acceleration == "qemu"
    assert not real.litter()


def test_without_the_tiny_guest_nothing_is_said_about_acceleration(real: LibvirtWorld) -> None:
    connector = real.connector()
    connector.surroundings = dataclasses.replace(connector.surroundings, probe_image=None)
    assert ProbeAcceleration not in connector.check(time.monotonic() + 10).takes
    assert isinstance(refuse(real, connector, ProbeAcceleration(key=new_key())), Unsupported)


def test_the_machine_of_a_probe_is_transient(real: LibvirtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that loses power during the probe comes up without it."""
    monkeypatch.setattr(probe, "TRIED", "qemu")
    connector, order = real.connector(), ProbeAcceleration(key=new_key(), limit_s=60)
    first = submit(connector, [order])[order.key]
    wait_for_guest(real)
    domain = real.conn.lookupByUUIDString(order.key)
    assert not domain.isPersistent()
    assert read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).role == "probe"
    finish(real, connector, order, first)
