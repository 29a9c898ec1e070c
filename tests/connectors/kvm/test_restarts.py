"""A restart happens once, and a recycled machine remembers nothing: orders that must not be repeated or half done."""

from __future__ import annotations

import dataclasses

import libvirt
import pytest
from lxml import etree

from connectors.base import PowerAction, RecycleMachine, SetPower
from connectors.errors import PlatformFault, Unsupported
from connectors.kvm import power
from tests.connectors.contract import clone, do, made, new_key, ref, refuse
from tests.connectors.kvm.worlds import LibvirtWorld


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET])
def test_a_restart_whose_answer_was_lost_is_not_repeated(real: LibvirtWorld, action: PowerAction) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    order = SetPower(key=new_key(), machine=machine, action=action)
    do(real, connector, order)
    error = refuse(real, real.connector(), dataclasses.replace(order, attempt=2))
    assert isinstance(error, PlatformFault)
    assert "ask again if not" in error.message
    do(real, connector, SetPower(key=new_key(), machine=machine, action=action))
    assert real.machines()[machine.id] == machine.stamp, "the trace took the stamp away"


def test_a_restart_that_was_refused_may_be_tried_again(real: LibvirtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.REBOOT)
    asked = power._ask

    def refused(*given: object) -> bool:
        real.conn.lookupByName("no such machine")
        return False

    monkeypatch.setattr(power, "_ask", refused)
    refuse(real, connector, order)
    monkeypatch.setattr(power, "_ask", asked)
    do(real, connector, dataclasses.replace(order, attempt=2))


@pytest.mark.parametrize(
    ("where", "what", "words"),
    [
        ("os", "<nvram>/var/lib/libvirt/qemu/nvram/desk.fd</nvram>", "UEFI variables"),
        ("devices", "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "a TPM"),
    ],
)
def test_a_machine_that_remembers_more_than_its_disks_is_not_recycled(
    world: LibvirtWorld, where: str, what: str, words: str
) -> None:
    """The next user would meet the last one's boot entries, keys or sealed secrets."""
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    domain = world.conn.lookupByUUIDString(machine.id)
    definition = etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    parent = definition.find(where)
    assert parent is not None
    if where == "os":
        parent.insert(0, etree.fromstring("<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"))
    parent.append(etree.fromstring(what))
    world.conn.defineXML(etree.tostring(definition, encoding="unicode"))
    before = world.litter()
    order = RecycleMachine(key=new_key(), machine=machine, name="again", template=world.template)
    error = refuse(world, connector, order)
    assert isinstance(error, Unsupported)
    assert words in error.message
    assert world.litter() == before
