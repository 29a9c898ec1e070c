"""Hyper-V as the lab's process stands it up."""

from __future__ import annotations

from pathlib import Path

from connectors.base import Surroundings
from connectors.hyperv.connector import HypervConnector
from connectors.hyperv.settings import HypervSettings
from lab.clock import Clock
from lab.platform import Platform, Registration, Site, site, stand_up
from tests.connectors.contract import listing


def place(folder: Path) -> Site:
    return site("hyperv", folder, Clock(), screens_port=5900)


def connector_of(registration: Registration, workdir: Path) -> HypervConnector:
    """As an administrator would register it."""
    told: dict[str, object] = {**registration.settings, **registration.secrets}
    told |= {"port": int(str(told["port"])), "screen_port": int(str(told["screen_port"]))}
    return HypervConnector(HypervSettings(**told), Surroundings(installation="x", workdir=workdir))  # type: ignore[arg-type]


def templates(platform: Platform, folder: Path) -> list[str]:
    """As a connector lists them."""
    platform.start()
    connector = connector_of(platform.registration, folder)
    try:
        return [it.id for it in listing(connector).templates]
    finally:
        connector.close()
        platform.stop()


def test_what_it_tells_registers_a_hypervisor(tmp_path: Path) -> None:
    platform = stand_up(place(tmp_path))
    assert templates(platform, tmp_path) == [platform.registration.template]


def test_it_comes_back_with_its_template_port_and_certificates(tmp_path: Path) -> None:
    first = stand_up(place(tmp_path))
    place(tmp_path).save(first)
    second = stand_up(place(tmp_path))
    assert second.registration == first.registration
    assert templates(second, tmp_path) == [first.registration.template]
