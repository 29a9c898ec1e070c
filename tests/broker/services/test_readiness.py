"""A desktop is called ready when its guest's RDP server answers, where its pool waits for that; real servers say so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models import F
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import rdp_servers
from broker.models import Desktop, Event, Pool
from broker.relay.rdp import x224
from broker.relay.rdp.x224 import Security
from broker.services import brokering, pools, readiness
from broker.services.errors import Invalid
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate
from tests.broker.relay.rdp.rdp_guest import WANTS_NLA, RdpGuest, rdp_guest
from tests.broker.relay.rfb_screen import screen
from tests.support.rdp_servers import guest_address, shadow, xrdp

RDP = {"protocol": Pool.Protocol.RDP.value, "preparation": Pool.Preparation.RDP.value}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with guest_address() as found:
        yield found


@pytest.fixture
def guest(address: str, tmp_path: Path) -> Iterator[RdpGuest]:
    with rdp_guest(address, tmp_path) as served:
        yield served


@pytest.fixture
def coming(house: Estate, guest: RdpGuest) -> Desktop:
    """A desktop of a pool that waits for RDP; its agent answers already."""
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, rdp_port=guest.port, **RDP)  # type: ignore[arg-type]
    return house.make(state=State.PREPARING, addresses=[guest.address])


def state_of(desktop: Desktop) -> str:
    return Desktop.objects.get(pk=desktop.pk).state


def test_the_question_is_the_one_that_the_relay_asks() -> None:
    assert x224.request(Security.TLS | Security.NLA) == rdp_servers.REQUEST


def test_real_servers_answer_and_others_and_nobody_do_not(address: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "s").mkdir()
    silent = socket.create_server((address, 0))
    with xrdp(address, tmp_path / "x") as tls, shadow(address, tmp_path / "s") as nla, screen() as vnc, closing(silent):
        answered = rdp_servers.answering(
            {
                "xrdp": ([address], tls.port),
                "nla": ([address], nla.port),
                "vnc": (["127.0.0.1"], vnc.port),
                "silent": ([address], silent.getsockname()[1]),
                "nobody": ([address], 1),
                "nowhere": ([], 3389),
            }
        )
    assert answered == {"xrdp", "nla"}


@pytest.mark.parametrize("confirmation", [b"", WANTS_NLA])
def test_a_desktop_is_ready_once_its_server_answers_also_if_that_wants_another_security(
    coming: Desktop, guest: RdpGuest, confirmation: bytes
) -> None:
    guest.confirmation = confirmation or guest.confirmation
    assert readiness.due()
    assert readiness.ask() == 1
    coming.refresh_from_db()
    assert (coming.state, coming.rdp_epoch, coming.ready_at is not None) == ("ready", coming.epoch, True)
    assert Event.objects.get(kind="desktop.prepared").desktop == coming
    assert not readiness.due()


def test_it_is_asked_again_until_it_answers_and_not_at_every_turn(coming: Desktop, guest: RdpGuest) -> None:
    Pool.objects.update(rdp_port=1)
    assert readiness.ask() == 0
    assert state_of(coming) == "preparing"
    assert not readiness.due(), "asked a moment ago"
    Pool.objects.update(rdp_port=guest.port)
    Desktop.objects.update(rdp_asked_at=timezone.now() - timedelta(seconds=6))
    assert readiness.due()
    assert readiness.ask() == 1


def test_only_what_lacks_nothing_else_is_asked(house: Estate, coming: Desktop, guest: RdpGuest) -> None:
    Desktop.objects.filter(pk=coming.pk).update(is_answering=False)
    assert not readiness.due()
    Desktop.objects.filter(pk=coming.pk).update(is_answering=True, rdp_epoch=F("epoch"))
    assert not readiness.due(), "its server has answered"
    Desktop.objects.filter(pk=coming.pk).update(rdp_epoch=0)
    Pool.objects.update(preparation=Pool.Preparation.AGENT)
    assert not readiness.due()
    assert readiness.ask() == 0
    assert guest.requests == []


def test_an_answer_of_an_epoch_that_is_over_says_nothing(
    coming: Desktop, guest: RdpGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it was asked the desktop changed hands."""
    asked = rdp_servers.answering

    def slowly(wanted: dict[object, rdp_servers.Place]) -> set[object]:
        answered = asked(wanted)
        Desktop.objects.filter(pk=coming.pk).update(epoch=F("epoch") + 1)
        return answered

    monkeypatch.setattr(rdp_servers, "answering", slowly)
    assert readiness.ask() == 0
    assert state_of(coming) == "preparing"


def test_a_guest_that_names_our_own_loopback_is_not_followed(coming: Desktop, guest: RdpGuest) -> None:
    Desktop.objects.update(addresses=["127.0.0.1"])
    assert readiness.ask() == 0
    assert state_of(coming) == "preparing"


def test_the_agent_alone_makes_nothing_ready_in_a_pool_that_waits_for_rdp(plant: Plant, guest: RdpGuest) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1, rdp_port=guest.port, **RDP)
    plant.until(lambda: plant.count(State.PREPARING) == 1, "it stands")
    plant.step()
    (desktop,) = plant.desktops()
    assert (desktop.state, desktop.is_answering) == ("preparing", True)
    Desktop.objects.update(addresses=[guest.address])
    assert readiness.ask() == 1
    plant.step()
    assert plant.count(State.READY) == 1


def test_a_recycled_desktop_is_asked_anew(plant: Plant, guest: RdpGuest) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1, maximum=1, rdp_port=guest.port, **RDP)
    plant.until(lambda: plant.count(State.PREPARING) == 1, "it stands")
    plant.step()
    Desktop.objects.update(addresses=[guest.address])
    readiness.ask()
    plant.ask(plant.alice)
    (desktop,) = plant.desktops()
    brokering.release_desktop(actor=plant.alice, desktop_id=desktop.pk)
    plant.until(lambda: plant.count(State.PREPARING) == 1, "it was recycled")
    plant.step()
    assert plant.count(State.READY) == 0
    Desktop.objects.update(rdp_asked_at=None)
    assert readiness.due()


def test_what_shows_no_rdp_cannot_wait_for_it(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, preparation="rdp")
    assert "preparation" in refused.value.fields
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **RDP)  # type: ignore[arg-type]
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol="vnc")
    assert "protocol" in refused.value.fields
