"""Hyper-V as the lab's process stands it up."""

from __future__ import annotations

from pathlib import Path

from connectors.base import Surroundings
from connectors.hyperv.connector import HypervConnector
from connectors.hyperv.settings import HypervSettings
from lab.clock import Clock
from lab.hyperv import stand_up
from lab.platform import Registration, Site
from tests.connectors.contract import listing


def site(folder: Path) -> Site:
    return Site("hyperv", folder, Clock(), 1, "127.65.0.0/16", 5900)


def connector_of(registration: Registration, workdir: Path) -> HypervConnector:
    """As an administrator would register it."""
    told: dict[str, object] = {**registration.settings, **registration.secrets}
    told |= {"port": int(str(told["port"])), "screen_port": int(str(told["screen_port"]))}
    return HypervConnector(HypervSettings(**told), Surroundings(installation="x", workdir=workdir))  # type: ignore[arg-type]


def test_what_it_tells_registers_a_hypervisor(tmp_path: Path) -> None:
    platform = stand_up(site(tmp_path))
    platform.start()
    try:
        connector = connector_of(platform.registration, tmp_path)
        assert [it.id for it in listing(connector).templates] == [platform.registration.template]
        connector.close()
    finally:
        platform.stop()


def test_it_comes_back_with_its_template_and_certificate(tmp_path: Path) -> None:
    first = stand_up(site(tmp_path))
    first.stop()
    site(tmp_path).save(first.world)
    second = stand_up(site(tmp_path))
    try:
        assert second.registration.template == first.registration.template
        assert second.registration.settings["ca_certificate"] == first.registration.settings["ca_certificate"]
    finally:
        second.stop()
