"""The wire: nodes that fail over, nodes that are being updated, certificates, sessions."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from connectors.base import Stage
from connectors.errors import CertificateRejected, CredentialsRejected, Unreachable
from tests.connectors.contract import clone, finish, listing, made, soon, submit
from tests.connectors.hypercore.worlds import PASSWORD, HyperCoreWorld, cluster_world


def test_a_dead_node_is_gone_round(world: HyperCoreWorld) -> None:
    connector = world.connector()
    world.nodes[0].cut_off()
    began = time.monotonic()
    assert listing(connector).complete
    made(world, connector, clone(world))
    assert time.monotonic() - began < 15
    world.nodes[1].cut_off()
    assert listing(connector).complete
    world.nodes[2].cut_off()
    with pytest.raises(Unreachable) as told:
        connector.inventory(None, soon(5))
    assert "None of the 3 nodes answered" in told.value.message


@pytest.mark.parametrize("way", ["hang", "tls", "502"])
def test_a_node_that_is_being_updated_is_gone_round(world: HyperCoreWorld, way: str) -> None:
    """It hangs, breaks off the handshake, or answers with a page (field notes, rule 5)."""
    connector = world.connector()
    listing(connector)
    sick = world.nodes[0]
    if way == "hang":
        world.faults.add("hang", f"/rest/v1/.* @{sick.address}", count=-1)
    elif way == "tls":
        sick.break_tls()
        sick.cut_off()
        sick.come_back()
    else:
        world.faults.add("status", f"@{sick.address}", status=502, count=-1, body="<html>502</html>")
    began = time.monotonic()
    inventory = connector.inventory(None, soon(9))
    assert inventory.complete
    assert time.monotonic() - began < 9
    order = clone(world)
    assert finish(world, connector, order).stage is Stage.DONE
    assert len(world.asked("POST", "/clone")) == 1
    world.faults.clear()


def test_a_node_whose_api_comes_back_while_a_change_is_asked_is_not_asked_twice(world: HyperCoreWorld) -> None:
    """A change that may have arrived is looked up, not repeated at the next node."""
    connector, order = world.connector(), clone(world)
    world.faults.add("drop_after", "POST .*/clone")
    with pytest.raises(Unreachable):
        submit(connector, [order])
    assert len(world.asked("POST", "/clone")) == 1
    made(world, connector, dataclasses.replace(order, attempt=2))
    assert len(world.machines()) == 1


def test_a_change_goes_to_another_node_if_none_could_be_connected_to(world: HyperCoreWorld) -> None:
    connector = world.connector()
    listing(connector)
    order = clone(world)
    world.faults.add("slow", "GET /rest/v1/VirDomain", delay_s=0.3)
    for node in world.nodes[:2]:
        node.cut_off()
    assert submit(connector, [order])[order.key].stage is Stage.RUNNING
    assert len(world.asked("POST", "/clone", world.nodes[2].address)) == 1


def test_nodes_that_the_cluster_tells_of_are_asked_once_ours_are_down(world: HyperCoreWorld) -> None:
    connector = world.connector(addresses=world.nodes[0].address)
    listing(connector)
    world.nodes[0].cut_off()
    assert listing(connector).complete


def test_a_certificate_that_is_not_trusted_is_sent_nothing(world: HyperCoreWorld) -> None:
    for node in world.nodes:
        node.change_certificate()
    connector = world.connector()
    for call in (lambda: connector.check(soon(5)), lambda: submit(connector, [clone(world)])):
        with pytest.raises(CertificateRejected) as told:
            call()
        assert "No password was sent" in told.value.message
    assert not world.asked("login")


def test_a_certificate_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    with cluster_world(tmp_path, nodes=1) as world:
        connector = world.connector()
        listing(connector)
        world.nodes[0].change_certificate()
        world.nodes[0].cut_off()
        world.nodes[0].come_back()
        seen = len(world.asked())
        with pytest.raises(CertificateRejected):
            connector.inventory(None, soon(5))
        assert len(world.asked()) == seen, "nothing was asked of the stranger"


def pins(world: HyperCoreWorld) -> str:
    return "\n".join(node.certificate.sha256 for node in world.nodes if node.certificate)


def test_pinned_certificates_are_taken_whatever_they_name(world: HyperCoreWorld) -> None:
    colons = ":".join(pins(world)[place : place + 2].upper() for place in range(0, 64, 2))
    connector = world.connector(ca_certificate="", fingerprints=colons + "\n" + pins(world))
    assert listing(connector).complete
    made(world, connector, clone(world))


def test_a_certificate_that_is_not_pinned_is_sent_nothing(world: HyperCoreWorld) -> None:
    connector = world.connector(ca_certificate="", fingerprints=pins(world))
    for node in world.nodes:
        node.change_certificate()
    with pytest.raises(CertificateRejected):
        connector.check(soon(5))
    assert not world.asked()


def test_a_node_with_a_strange_certificate_is_gone_round(world: HyperCoreWorld) -> None:
    connector = world.connector()
    world.nodes[0].change_certificate()
    assert listing(connector).complete
    assert not world.asked(world.nodes[0].address)


def test_one_trusts_the_given_authority_and_no_other(world: HyperCoreWorld, tmp_path: Path) -> None:
    with cluster_world(tmp_path / "other", nodes=1) as other:
        strange = other.settings.ca_certificate
    with pytest.raises(CertificateRejected):
        world.connector(ca_certificate=strange).check(soon(5))


def test_each_node_has_a_session_of_its_own_and_it_is_ended(world: HyperCoreWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    assert all(node.sessions for node in world.nodes)
    connector.close()
    assert not any(node.sessions for node in world.nodes)


def test_the_trusted_certificates_are_a_file_only_while_it_is_open(world: HyperCoreWorld, tmp_path: Path) -> None:
    one, other = world.connector(), world.connector()
    one.check(soon())
    other.check(soon())
    one.close()
    assert other.check(soon()).product == "HyperCore", "another object's file is its own"
    other.close()
    assert not list(tmp_path.glob("*.pem"))


def test_closing_waits_for_no_hanging_node(world: HyperCoreWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    world.faults.add("hang", "logout", count=-1)
    began = time.monotonic()
    connector.close()
    assert time.monotonic() - began < 4


def test_an_answer_that_trickles_ends_with_the_deadline(world: HyperCoreWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.faults.add("slow", "VirDomain", delay_s=3, count=-1)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        connector.inventory(None, soon(1.5))
    assert time.monotonic() - began < 2.5


def test_the_password_goes_to_the_login_alone(world: HyperCoreWorld) -> None:
    connector = world.connector()
    connector.check(soon())
    made(world, connector, clone(world))
    for node in world.nodes:
        for seen in node.requests:
            is_login = seen.raw_path.endswith("/login")
            assert (PASSWORD.encode() in seen.body) == is_login
            assert PASSWORD not in str(seen.headers) + seen.raw_path
            assert "Authorization" not in seen.headers


def test_a_stranger_at_the_address_gives_no_session(world: HyperCoreWorld) -> None:
    world.faults.add("status", "login", status=200, body="{}", count=-1)
    with pytest.raises(Unreachable) as told:
        world.connector().check(soon())
    assert "HyperCore" in told.value.message


def test_a_wrong_password_is_told(world: HyperCoreWorld) -> None:
    with pytest.raises(CredentialsRejected):
        world.connector(password="no").check(soon())


def test_proxies_and_netrc_of_the_machine_are_not_used(world: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert world.connector().check(soon()).product == "HyperCore"
