"""The wire to a Hyper-V host: trust, sign-in, shells and deadlines, each against WinRM as the lab speaks it."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from connectors.base import ProbeAcceleration, Stage
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
from connectors.hyperv import client
from connectors.hyperv.client import Line, unframed
from connectors.hyperv.connector import HypervConnector
from lab.certificates import make
from tests.connectors.contract import clone, do, finish, listing, made, new_key, soon, submit
from tests.connectors.hyperv.worlds import PASSWORD, HypervWorld

LOOK = {"budget_s": 5, "with_machines": True}


def line_of(connector: HypervConnector) -> Line:
    return connector._desks[0].line


def refusal(connector: HypervConnector, seconds: float = 5) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        connector.check(soon(seconds))
    for text in (str(caught.value), repr(caught.value), caught.value.platform_words):
        assert PASSWORD not in text
    return caught.value


# --- trust -----------------------------------------------------------------------------------------------------------


def test_a_host_whose_certificate_is_trusted_is_spoken_to(world: HypervWorld) -> None:
    assert world.connector().check(soon()).product.startswith("Microsoft Windows Server")


def test_a_host_with_another_certificate_is_told_nothing(world: HypervWorld, tmp_path: Path) -> None:
    stranger = make("127.0.0.3", tmp_path / "stranger").pem
    assert isinstance(refusal(world.connector(ca_certificate=stranger)), CertificateRejected)
    assert not world.server.requests


def test_a_pinned_certificate_needs_no_authority(world: HypervWorld) -> None:
    assert world.server.certificate is not None
    sha256 = world.server.certificate.sha256.upper()
    pin = ":".join(sha256[at : at + 2] for at in range(0, 64, 2))
    assert world.connector(ca_certificate="", fingerprints=f"{'0' * 64}\n{pin}").check(soon()).takes


def test_a_certificate_that_is_not_the_pinned_one_is_told_nothing(world: HypervWorld) -> None:
    assert isinstance(refusal(world.connector(ca_certificate="", fingerprints="a" * 64)), CertificateRejected)
    assert not world.server.requests


def test_a_certificate_that_changes_is_noticed_on_the_next_connection(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.change_certificate()
    world.server.cut_off()
    world.server.come_back()
    with pytest.raises(CertificateRejected):
        connector.inventory(None, soon(5))


def test_a_host_that_refuses_connections_is_unreachable(world: HypervWorld) -> None:
    world.server.cut_off()
    error = refusal(world.connector())
    assert isinstance(error, Unreachable)
    assert error.message.startswith("Host 127.0.0.3")


def test_environment_proxies_are_not_used(world: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert world.connector().check(soon()).takes


def test_environment_proxies_are_not_used_over_http(sealed: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert sealed.connector().check(soon()).takes


def test_nothing_readable_goes_over_http(sealed: HypervWorld) -> None:
    listing(sealed.connector())
    bodies = [seen for seen in sealed.server.requests if seen.label not in ("Sign in",)]
    assert bodies
    for seen in bodies:
        assert "session-encrypted" in seen.headers["Content-Type"]


# --- sign-in ---------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_tried_once(world: HypervWorld) -> None:
    connector = world.connector(password="wrong")
    error = refusal(connector)
    assert isinstance(error, CredentialsRejected)
    assert world.server.sign_ins == 1
    assert isinstance(refusal(connector), CredentialsRejected)
    assert world.server.sign_ins == 1, "a refused password is not tried again at once"


def test_a_wrong_password_is_tried_once_over_http(sealed: HypervWorld) -> None:
    assert isinstance(refusal(sealed.connector(password="wrong")), CredentialsRejected)
    assert sealed.server.sign_ins == 1


def test_a_wrong_password_is_tried_at_one_node_alone(cluster: HypervWorld) -> None:
    connector = cluster.connector(password="wrong")
    assert isinstance(refusal(connector), CredentialsRejected)
    with pytest.raises(CredentialsRejected):
        submit(connector, [clone(cluster)])
    assert sum(server.sign_ins for server in cluster.servers) == 1


def test_a_password_that_was_changed_meanwhile_is_noticed(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.add_account(dataclasses.replace(world.account, password="another"))
    world.server.cut_off()
    world.server.come_back()
    with pytest.raises(CredentialsRejected):
        connector.inventory(None, soon(5))


@pytest.mark.parametrize("kind", ["world", "sealed"])
def test_an_idle_connection_that_was_dropped_is_no_wrong_password(kind: str, request: pytest.FixtureRequest) -> None:
    """pywinrm says "credentials rejected" of a message sealed with the key of a connection that is gone."""
    here: HypervWorld = request.getfixturevalue(kind)
    connector = here.connector()
    whole = listing(connector)
    here.server.cut_off()
    here.server.come_back()
    assert connector.inventory(None, soon()).machines == whole.machines
    assert len(here.server.shells) == 1, "the shell lived on"


def test_sessions_that_expire_while_a_script_runs_are_taken_up_again(sealed: HypervWorld) -> None:
    connector = sealed.connector()
    listing(connector)
    sealed.faults.add("session_expires", "Send inventory")
    assert listing(connector).hosts


def test_kerberos_without_its_library_is_told_in_words(world: HypervWorld) -> None:
    error = refusal(world.connector(sign_in="kerberos"))
    assert isinstance(error, Unsupported)


# --- shells ----------------------------------------------------------------------------------------------------------


def test_one_shell_serves_many_scripts(world: HypervWorld) -> None:
    connector = world.connector()
    for _ in range(5):
        listing(connector)
    assert len(world.server.shells) == 1
    assert sum(seen.label == "Create" for seen in world.server.requests) == 1
    assert world.server.starts == 5


def test_a_shell_is_left_before_its_operations_are_spent(world: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SHELL_COMMANDS", 3)
    connector = world.connector()
    for _ in range(7):
        listing(connector)
    assert sum(seen.label == "Create" for seen in world.server.requests) == 3
    assert len(world.server.shells) == 1, "the old ones were ended"


def test_an_old_shell_is_left(world: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SHELL_AGE_S", 0.0)
    connector = world.connector()
    listing(connector)
    listing(connector)
    assert sum(seen.label == "Create" for seen in world.server.requests) == 2


def test_a_shell_whose_operations_are_spent_is_replaced(world: HypervWorld) -> None:
    world.server.most_operations = 1
    connector = world.connector()
    listing(connector)
    assert listing(connector).hosts


def test_a_shell_that_is_gone_is_replaced(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.lose_shells()
    assert listing(connector).hosts


def test_a_shell_that_goes_while_a_script_runs_is_busy_and_the_order_goes_on(world: HypervWorld) -> None:
    connector, order = world.connector(), clone(world)
    listing(connector)
    world.server.think_s = 0.6
    threading.Timer(0.3, world.server.lose_shells).start()
    outcome = finish(world, connector, order)
    world.server.think_s = 0.0
    assert isinstance(outcome.error, Busy)
    assert do(world, connector, dataclasses.replace(order, attempt=2)).stage is Stage.DONE
    assert len(world.machines()) == 1


def test_a_host_with_too_many_shells_is_busy(world: HypervWorld) -> None:
    world.server.most_shells = 0
    assert isinstance(refusal(world.connector()), Busy)


def test_closing_ends_the_shell_and_removes_the_certificate(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    assert list(world.workdir.glob("hyperv-ca-*"))
    connector.close()
    assert not world.server.shells
    assert not list(world.workdir.glob("hyperv-ca-*"))


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_what_a_profile_prints_and_progress_on_standard_error_change_nothing(world: HypervWorld) -> None:
    world.server.noise = b"Welcome <<to \xfc\r\n"
    assert listing(world.connector()).templates


def test_a_large_answer_comes_in_pieces(world: HypervWorld) -> None:
    with world.world:
        for number in range(600):
            world.world.create(f"Büro-日本-{number}", disks_mib=(10,))
    seen = listing(world.connector())
    assert len(seen.machines) >= 600
    assert sum(it.label == "Receive inventory 1" for it in world.server.requests) > 1


def test_a_large_batch_is_sent_in_pieces(world: HypervWorld) -> None:
    connector = world.connector()
    orders = [clone(world, name=f"desk-{number}-{'日' * 60}") for number in range(120)]
    outcomes = submit(connector, orders)
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert sum(it.label == "Send orders 1" for it in world.server.requests) > 1


def test_a_hostile_name_stays_data(world: HypervWorld) -> None:
    name = "x'; Remove-VM * -Force; '\u2019 $(calc) `n \u201cGr\u00fc\u00dfe\u201d \u65e5\u672c \"q\""
    machine = made(world, world.connector(), clone(world, name=name))
    assert world.names()[machine.machine_id] == name


def test_a_script_that_does_not_end_is_ended_at_the_deadline(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.think_s = 30
    began = time.monotonic()
    with pytest.raises(Busy):
        line_of(connector).run("inventory", LOOK, soon(1))
    assert time.monotonic() - began < 4
    world.server.wait_until_quiet()
    assert any(seen.label.startswith("Signal") for seen in world.server.requests)


def test_orders_that_a_script_did_not_reach_in_time_are_not_done_afterwards(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.think_s = 30
    order = clone(world)
    assert next(iter(connector.submit([order], soon(1.5)))).stage is Stage.RUNNING
    time.sleep(2)
    world.server.think_s = 0.0
    assert not world.machines()
    assert do(world, world.connector(), dataclasses.replace(order, attempt=2)).stage is Stage.DONE
    assert len(world.machines()) == 1


def test_the_answer_stands_between_its_marks() -> None:
    assert unframed(b'\xff\xfe hello <<J {"ok": true} J>> bye') == {"ok": True}
    assert unframed(b"nothing") is None
    assert unframed(b" J>> <<J ") is None
    assert unframed(b"<<J [1] J>>") is None
    assert unframed(b"<<J {broken J>>") is None


def test_an_answer_of_another_version_is_a_fault(world: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(world.connector())
    with pytest.raises(PlatformFault):
        line._read(b'<<J {"ok":true,"v":99,"r":{}} J>>')
    with pytest.raises(PlatformFault):
        line._read(b"")
    with pytest.raises(NotFound):
        line._read(b'<<J {"ok":false,"v":1,"id":"ObjectNotFound,x","hresult":0,"msg":""} J>>')


def test_four_threads_share_no_connection(world: HypervWorld) -> None:
    """Of one session used by several threads NTLM's seals break; a line's calls take turns."""
    line = line_of(world.connector())
    failures: list[Exception] = []

    def look() -> None:
        try:
            line.run("inventory", LOOK, soon())
        except ConnectorError as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_password_stands_in_no_command_line(world: HypervWorld) -> None:
    connector = world.connector()
    made(world, connector, clone(world))
    for seen in world.server.requests:
        if seen.label.startswith("Command"):
            assert PASSWORD.encode() not in seen.body


def test_an_order_that_hyperv_does_not_know_is_refused(world: HypervWorld) -> None:
    outcome = finish(world, world.connector(), ProbeAcceleration(key=new_key()))
    assert isinstance(outcome.error, Unsupported)
