"""The relay signs in to a guest that lets in only who proves first who he is: FreeRDP's shadow, in earnest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.hypervisors import sealing
from broker.models import Assignment, Desktop, Hypervisor, Operation, Pool
from broker.relay.closing import Code
from broker.relay.rdp import cleanpath, der, x224
from broker.relay.rdp.x224 import Security
from broker.services import guest_passwords, pools
from tests.broker.portal.cast import Estate
from tests.broker.relay.rdp.test_door import CONNECT_INITIAL, answer, ask, closing, error, open_socket, request
from tests.broker.relay.serving import Web, signed_in
from tests.support.rdp_servers import NLA_PASSWORD, NLA_USER, RdpServer, guest_address, shadow


@pytest.fixture
def guest(house: Estate, tmp_path: Path) -> Iterator[RdpServer]:
    """Alice's desktop is this guest, and its pool has an account there."""
    with guest_address() as address, shadow(address, tmp_path) as server:
        give_account(house, NLA_USER, NLA_PASSWORD, protocol=Pool.Protocol.RDP, rdp_port=server.port)
        Desktop.objects.filter(pk=house.desktop.pk).update(addresses=[address])
        yield server


def give_account(house: Estate, user: str, password: str, **more: object) -> None:
    account = {"guest_account": "pool", "guest_user": user, "guest_password": password} | more
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **account)  # type: ignore[arg-type]


def test_the_pools_account_opens_a_guest_to_a_browser_that_knows_no_password(
    house: Estate, web: Web, guest: RdpServer
) -> None:
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        confirmation = der.only(answer(browser)[6], der.OCTET_STRING)
        assert x224.read_confirmation(confirmation).security is Security.TLS
        browser.send(CONNECT_INITIAL)
        response = browser.recv(timeout=30)
        assert isinstance(response, bytes)
        assert response[7:9] == b"\x7f\x66", "the guest goes on with its conference"


@pytest.mark.parametrize("account", [(NLA_USER, "wrong"), ("nobody", NLA_PASSWORD)])
def test_an_account_that_the_guest_does_not_take_is_said_and_not_tried_again(
    house: Estate, web: Web, guest: RdpServer, account: tuple[str, str]
) -> None:
    give_account(house, *account)
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 403}
        words = "The desktop does not take the account that its pool has. Tell your administrator."
        assert closing(browser) == (Code.REFUSED, words)


def give_password(house: Estate, password: str) -> None:
    """What a local account's order leaves behind: Alice's assignment has it, and so, if it is right, has the guest."""
    Hypervisor.objects.update(takes=[guest_passwords.ORDER])
    give_account(house, NLA_USER, "", guest_account="local")
    sealed = sealing.seal({guest_passwords.PASSWORD: password})
    Assignment.objects.filter(user=house.alice).update(
        guest_user=NLA_USER, guest_secret=sealed, guest_machine=house.desktop.machine_id
    )


def test_the_password_of_an_assignment_opens_its_guest(house: Estate, web: Web, guest: RdpServer) -> None:
    give_password(house, NLA_PASSWORD)
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        assert 6 in answer(browser)
        browser.send(CONNECT_INITIAL)
        response = browser.recv(timeout=10)
        assert isinstance(response, bytes)
        assert response[7:9] == b"\x7f\x66", "the guest goes on with its conference"


def test_a_guest_that_refuses_the_password_of_an_assignment_gets_it_anew(
    house: Estate, web: Web, guest: RdpServer
) -> None:
    give_password(house, "wrong")
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 504}
        words = "The desktop did not know its user's password and gets it anew. Try again."
        assert closing(browser) == (Code.NOT_READY, words)
    ask(house, cookie)
    assert Operation.objects.get().kind == Operation.Kind.PASSWORD


def test_a_guest_that_could_not_be_given_the_password_is_said_in_words(
    house: Estate, web: Web, guest: RdpServer
) -> None:
    give_password(house, NLA_PASSWORD)
    Assignment.objects.update(guest_machine="")
    cookie = signed_in(house, "alice")
    ticket = ask(house, cookie)
    Operation.objects.update(state=Operation.State.FAILED, error="The guest does not take it.")
    with open_socket(web, cookie) as browser:
        browser.send(request(ticket, Security.TLS))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 500}
        assert closing(browser) == (Code.FAILED, "The guest does not take it.")
