"""The wire: certificates, signing in, versions, request ids, paging, pace, and odd answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.base import CloneMachine, Power, SetPower, Stage
from connectors.base import PowerAction as Action
from connectors.errors import (
    Busy,
    CertificateRejected,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.nutanix.client import Client
from connectors.nutanix.settings import NutanixSettings
from lab.certificates import make
from lab.http import Request, Response
from lab.nutanix.server import RATES
from tests.connectors.contract import clone, do, finish, listing, made, new_key, ref, soon, submit
from tests.connectors.nutanix.worlds import PrismWorld


def error_of(call: Callable[[], object]) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        call()
    return caught.value


def pin(world: PrismWorld) -> str:
    assert world.server.certificate is not None
    return world.server.certificate.sha256


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_that_was_not_trusted_is_refused_and_hears_nothing(world: PrismWorld, tmp_path: Path) -> None:
    other = make("127.0.0.4", tmp_path / "other")
    for settings in ({"ca_certificate": other.pem}, {"ca_certificate": ""}):
        connector = world.connector(**settings)
        error = error_of(lambda connector=connector: connector.check(soon()))  # type: ignore[misc]
        assert isinstance(error, CertificateRejected)
    assert not world.server.requests


def test_a_pinned_certificate_is_accepted_and_another_one_hears_nothing(world: PrismWorld) -> None:
    colons = ":".join(pin(world)[at : at + 2] for at in range(0, 64, 2)).upper()
    for right in (pin(world), colons):
        world.connector(ca_certificate="", fingerprint=right).check(soon())
    world.server.requests.clear()
    connector = world.connector(ca_certificate="", fingerprint="ab" * 32)
    assert isinstance(error_of(lambda: connector.check(soon())), CertificateRejected)
    assert not world.server.requests


def test_with_both_a_pin_and_an_authority_both_have_to_be_right(world: PrismWorld) -> None:
    world.connector(fingerprint=pin(world)).check(soon())
    connector = world.connector(fingerprint="ab" * 32)
    assert isinstance(error_of(lambda: connector.check(soon())), CertificateRejected)


def test_a_certificate_that_changes_is_noticed_at_the_next_connection(world: PrismWorld) -> None:
    connector = world.connector(ca_certificate="", fingerprint=pin(world))
    listing(connector)
    world.server.change_certificate()
    world.server.cut_off()
    world.server.come_back()
    world.server.requests.clear()
    assert isinstance(error_of(lambda: connector.inventory(None, soon())), CertificateRejected)
    assert not world.server.requests


# --- signing in ------------------------------------------------------------------------------------------------------


def test_the_account_is_sent_once_and_then_the_session_alone(world: PrismWorld) -> None:
    listing(world.connector())
    sent = [seen.headers for seen in world.server.requests]
    assert ["Authorization" in headers for headers in sent] == [True] + [False] * (len(sent) - 1)
    assert all("NTNX_IAM_SESSION=" in headers["Cookie"] for headers in sent[1:])


def test_an_expired_session_is_renewed_without_a_word(world: PrismWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.expire_sessions()
    listing(connector)


def test_a_wrong_password_is_tried_once_a_call_and_told_in_words(world: PrismWorld) -> None:
    connector = world.connector(password="wrong-and-secret")
    error = error_of(lambda: connector.check(soon()))
    assert isinstance(error, CredentialsRejected)
    assert len(world.server.requests) == 1
    assert "wrong-and-secret" not in f"{error} {error!r} {error.platform_words}"


def test_a_rejected_account_ends_the_batch_so_that_nobody_locks_it(world: PrismWorld) -> None:
    connector = world.connector(password="wrong")
    orders = [clone(world) for _ in range(20)]
    assert isinstance(error_of(lambda: list(connector.submit(orders, soon()))), CredentialsRejected)
    assert len(world.server.requests) == 1


def test_a_service_account_signs_in_by_its_key(world: PrismWorld) -> None:
    connector = world.connector(sign_in="api_key", user="", password="", api_key=world.server.account.api_key)
    listing(connector)
    assert all("Authorization" not in seen.headers for seen in world.server.requests)
    bad = world.connector(sign_in="api_key", user="", password="", api_key="stolen-key")
    error = error_of(lambda: bad.check(soon()))
    assert isinstance(error, CredentialsRejected)
    assert "stolen-key" not in f"{error} {error.platform_words}"


def test_a_redirect_with_a_token_is_followed_with_that_token(world: PrismWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    world.server.redirects = 1
    world.server.expire_sessions()
    listing(connector)
    assert any("NTNX_REDIRECT=" in seen.headers.get("Cookie", "") for seen in world.server.requests)


def test_secrets_that_prism_repeats_are_struck_out(world: PrismWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    body = '{"data": {"error": [{"message": "bad: %s"}]}}' % world.server.account.password  # noqa: UP031
    world.faults.add("status", world.changing, status=400, body=body)
    order = clone(world)
    error = finish(world, connector, order).error
    assert error is not None
    assert "bad: •••" in error.platform_words


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "spoken"), [((4, 0), "v4.0"), ((4, 1), "v4.1"), ((4, 2), "v4.2"), ((4, 3), "v4.3"), ((4, 9), "v4.3")]
)
def test_the_lower_of_both_versions_is_spoken(world: PrismWorld, server: tuple[int, int], spoken: str) -> None:
    world.server.versions["vmm"] = server
    listing(world.connector())
    paths = [seen.raw_path for seen in world.server.requests if seen.label == "GET vmm/ahv/config/vms"]
    assert all(f"/api/vmm/{spoken}/" in path for path in paths)


def test_each_namespace_has_a_version_of_its_own(world: PrismWorld) -> None:
    world.server.versions |= {"prism": (4, 0), "clustermgmt": (4, 1), "vmm": (4, 3)}
    assert "vmm v4.3, prism v4.0, clustermgmt v4.0" in world.connector().check(soon()).version


def test_after_a_404_of_the_path_the_version_is_asked_for_again(world: PrismWorld) -> None:
    world.server.versions["vmm"] = (4, 3)
    connector = world.connector()
    listing(connector)
    world.server.versions["vmm"] = (4, 2)  # another node, or a rollback
    listing(connector)


def test_a_thing_that_is_not_there_does_not_ask_for_the_version_again(world: PrismWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    before = sum(seen.method == "OPTIONS" for seen in world.server.requests)
    order = CloneMachine(key=new_key(), name="x", template=new_key())
    assert isinstance(submit(connector, [order])[order.key].error, NotFound)
    assert sum(seen.method == "OPTIONS" for seen in world.server.requests) == before


def test_what_this_prism_does_not_have_is_unsupported(world: PrismWorld) -> None:
    world.server.lacks.add("POST vmm/ahv/config/vms/{}/$actions/clone")
    order = clone(world)
    error = submit(world.connector(), [order])[order.key].error
    assert isinstance(error, Unsupported)


# --- requests --------------------------------------------------------------------------------------------------------


def test_every_change_bears_an_etag_and_a_request_id_of_its_own(world: PrismWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world, power_on=True)))
    do(world, connector, SetPower(key=new_key(), machine=machine, action=Action.OFF))
    changes = [seen for seen in world.server.requests if seen.status == 202]
    ids = [seen.headers["NTNX-Request-Id"] for seen in changes]
    assert len(changes) == 4
    assert len(set(ids)) == 4
    assert all(seen.headers["If-Match"].startswith("YXBwbGljYXRpb24vanNvbg==:") for seen in changes)


def test_an_etag_that_was_overtaken_is_read_again(world: PrismWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    handle, raced = world.server.handle, list[Request]()

    def race(request: Request) -> Response:
        response = handle(request)
        if request.method == "GET" and request.path.endswith(machine.id) and len(raced) < 2:
            raced.append(request)
            with world.lab:
                world.lab.touch(world.machine(machine.id))
        return response

    world.server.handle = race  # type: ignore[method-assign]
    result = do(world, connector, SetPower(key=new_key(), machine=machine, action=Action.ON)).result
    assert result is not None
    assert sum(seen.status == 412 for seen in world.server.requests) == 2


def test_a_task_is_asked_after_by_its_encoded_id(world: PrismWorld) -> None:
    made(world, world.connector(), clone(world))
    paths = [seen.raw_path for seen in world.server.requests if "/config/tasks/" in seen.raw_path]
    assert paths
    assert all("/config/tasks/ZXJnb24%3D%3A" in path for path in paths)


def test_names_with_quotes_are_looked_for_as_they_are(world: PrismWorld) -> None:
    order = clone(world, name="Bob's 'desk' (ö&=)")
    first = made(world, world.connector(), order)
    again = CloneMachine(key=order.key, name=order.name, template=order.template, power_on=False, attempt=2)
    assert made(world, world.connector(), again).machine_id == first.machine_id
    assert any("%27%27desk%27%27" in seen.raw_path for seen in world.server.requests)


def test_long_lists_are_read_page_by_page(world: PrismWorld) -> None:
    for number in range(230):
        world.lab.create(f"server-{number}")
    machines = listing(world.connector()).machines
    assert len({machine.id for machine in machines}) == 231
    asked = [seen.raw_path for seen in world.server.requests if seen.label == "GET vmm/ahv/config/vms"]
    assert [f"$page={page}&$limit=100" in path for page, path in enumerate(asked)] == [True] * 3


# --- pace ------------------------------------------------------------------------------------------------------------


def test_nobody_is_ever_told_to_slow_down_when_we_are_alone(world: PrismWorld) -> None:
    world.server.rates = dict(RATES)
    connector = world.connector()
    for _ in range(3):
        listing(connector)
    orders = [clone(world) for _ in range(4)]
    outcomes = submit(connector, orders)
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert not [seen for seen in world.server.requests if seen.status == 429]


def test_a_prism_that_is_busy_says_when_to_come_back(world: PrismWorld) -> None:
    world.faults.add("status", world.changing, status=429, headers={"Retry-After": "7"})
    order = clone(world)
    error = submit(world.connector(), [order])[order.key].error
    assert isinstance(error, Busy)
    assert error.retry_after_s == 7


def test_a_step_that_meets_a_busy_prism_goes_on_where_it_was(world: PrismWorld) -> None:
    connector, order = world.connector(), clone(world)
    world.faults.add("status", "^PUT vmm/", status=429, headers={"X-Ratelimit-Reset": "1"})
    machine = made(world, connector, order)
    assert list(world.machines()) == [machine.machine_id]


def test_a_reading_waits_out_a_busy_prism(world: PrismWorld) -> None:
    world.faults.add("status", world.reading, count=2, status=429, headers={"Retry-After": "0.2"})
    assert len(listing(world.connector()).machines) == 1


def test_a_batch_that_finds_no_turn_stays_running(world: PrismWorld) -> None:
    world.server.rates = {**RATES, "POST vmm/ahv/config/vms/{}/$actions/clone": 1}
    connector = world.connector()
    orders = [clone(world) for _ in range(4)]
    began = time.monotonic()
    outcomes = submit(connector, orders)
    assert time.monotonic() - began < 4
    assert any(outcome.receipt == {"step": "clone", "tries": 0, "looks": 1} for outcome in outcomes.values())
    world.server.rates = dict(RATES)
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert len(world.machines()) == 4


# --- odd answers -----------------------------------------------------------------------------------------------------


def test_words_that_no_release_of_today_knows_crash_nothing(world: PrismWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    world.machine(machine.machine_id).marks |= {"powerState": "$UNKNOWN", "extra": {"disks": None, "nics": "$REDACTED"}}
    for host in world.lab.hosts.values():
        host.marks["state"] = "$UNKNOWN"
    seen = listing(connector)
    assert {one.id: one.power for one in seen.machines}[machine.machine_id] is Power.UNKNOWN
    assert all(host.is_up for host in seen.hosts)


def test_somebody_else_at_the_address_is_told_apart_from_prism(world: PrismWorld) -> None:
    world.faults.add("status", ".*", count=-1, status=200, body="<html>Welcome to the coffee machine</html>")
    error = error_of(lambda: world.connector().check(soon()))
    assert isinstance(error, PlatformFault)
    assert "JSON" in error.message


def test_an_address_where_nobody_listens_is_unreachable(world: PrismWorld) -> None:
    world.server.cut_off()
    error = error_of(lambda: world.connector().check(soon()))
    assert isinstance(error, Unreachable)
    assert "refuses connections" in error.message
    world.server.come_back()


def test_an_answer_that_drips_ends_by_the_deadline(world: PrismWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    world.faults.add("slow", world.reading, delay_s=5)
    began = time.monotonic()
    assert isinstance(error_of(lambda: connector.inventory(None, soon(1))), Unreachable)
    assert time.monotonic() - began < 2


def test_a_client_shows_no_secret(tmp_path: Path) -> None:
    settings = NutanixSettings(address="prism", user="u", password="geheim", api_key="schluessel")
    assert "geheim" not in f"{settings!r} {Client(settings, tmp_path)!r}"
    assert "schluessel" not in f"{settings!r}"
