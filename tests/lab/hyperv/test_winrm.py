"""The lab's WinRM as clients of others see it: pypsrp, which shares nothing with pywinrm, and bare HTTP."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pypsrp.exceptions import AuthenticationError, WSManFaultError
from pypsrp.shell import Process, SignalCode, WinRS
from pypsrp.wsman import WSMan

from lab.clock import Clock
from lab.hyperv import Account, Estate, HypervHost, WinRmServer, furnish
from lab.hyperv.sealing import Unreadable, unseal
from lab.hyperv.wsman import WsmanFault, read
from lab.world import World

_numbers = itertools.count(1)
PASSWORD = "lab-witness-77"


def server_of(*, tls: bool) -> WinRmServer:
    world = World("witness", clock=Clock(0))
    with world:
        furnish(world)
    account = Account("LAB", f"witness{next(_numbers)}", PASSWORD)
    server = WinRmServer(HypervHost(Estate(world), "HV1"), "127.0.0.3", accounts=(account,), tls=tls)
    server.start()
    return server


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[WinRmServer]:
    made = server_of(tls=request.param == "https")
    yield made
    made.stop()


@pytest.fixture
def plain() -> Iterator[WinRmServer]:
    made = server_of(tls=False)
    yield made
    made.stop()


def account_of(server: WinRmServer) -> Account:
    return next(iter(server.accounts.values()))


def client(server: WinRmServer, auth: str = "ntlm", password: str = PASSWORD, **more: Any) -> WSMan:
    account = account_of(server)
    trust: Any = str(server.certificate.files / "server.crt") if server.certificate else True
    return WSMan(
        server.address, port=server.port, username=f"{account.domain}\\{account.user}", password=password,
        ssl=server.certificate is not None, cert_validation=trust, auth=auth, no_proxy=True,
        negotiate_service="http", **more,
    )  # fmt: skip


@pytest.mark.parametrize("auth", ["ntlm", "negotiate"])
def test_another_client_runs_a_command(server: WinRmServer, auth: str) -> None:
    with client(server, auth) as wsman, WinRS(wsman) as shell:
        process = Process(shell, "whoami")
        process.invoke()
        process.signal(SignalCode.CTRL_C)
    assert (process.rc, process.stdout) == (0, f"{account_of(server).principal}\r\n".encode())
    assert not server.shells, "it has ended its shell"


def test_another_client_sends_a_script_and_its_parameters(server: WinRmServer) -> None:
    document = {"s": "# deskyard-script: inventory 1\n", "p": {"budget_s": 5, "with_machines": True}, "v": 1}
    with client(server) as wsman, WinRS(wsman, codepage=65001) as shell:
        process = Process(shell, "powershell.exe", ["-EncodedCommand", "AAAA"], no_shell=False)
        process.begin_invoke()
        process.send(json.dumps(document).encode(), end=True)
        process.end_invoke()
        process.signal(SignalCode.CTRL_C)
    told = json.loads(process.stdout.partition(b"<<J ")[2].rpartition(b" J>>")[0])
    assert told["ok"]
    assert [it["name"] for it in told["r"]["machines"]] == ["golden"]
    assert server.starts == 1


def test_a_wrong_password_is_refused(server: WinRmServer) -> None:
    with client(server, password="wrong") as wsman, pytest.raises(AuthenticationError), WinRS(wsman):
        pass


def test_a_stranger_is_refused(server: WinRmServer) -> None:
    """Another server of this process may know the account; this one does not."""
    with client(server) as wsman:
        server.accounts = {"lab\\somebody": Account("LAB", "somebody", "x")}
        with pytest.raises(AuthenticationError), WinRS(wsman):
            pass


def test_quotas_are_kept(plain: WinRmServer) -> None:
    plain.most_shells = 1
    with client(plain) as wsman, WinRS(wsman), pytest.raises(WSManFaultError) as caught, WinRS(wsman):
        pass
    assert caught.value.code == 2150859173


def test_a_command_line_has_an_end(plain: WinRmServer) -> None:
    with client(plain) as wsman, WinRS(wsman) as shell:
        process = Process(shell, "echo " + "x" * 8200, no_shell=False)
        process.invoke()
        process.signal(SignalCode.CTRL_C)
    assert (process.rc, process.stdout) == (1, b"The command line is too long.\r\n")


def test_operations_of_a_shell_are_never_given_back(plain: WinRmServer) -> None:
    plain.most_operations = 2
    with client(plain) as wsman, WinRS(wsman) as shell:
        for _ in range(2):
            process = Process(shell, "hostname")
            process.invoke()
            process.signal(SignalCode.CTRL_C)
        with pytest.raises(WSManFaultError) as caught:
            Process(shell, "hostname").begin_invoke()
    assert caught.value.code == 2150859174


def test_nobody_uses_another_accounts_shell(plain: WinRmServer) -> None:
    other = Account("LAB", f"other{next(_numbers)}", PASSWORD)
    with client(plain) as wsman, WinRS(wsman) as shell:
        plain.shells[str(shell.id).upper()].owner = other.principal
        with pytest.raises(WSManFaultError) as caught:
            Process(shell, "hostname").begin_invoke()
        plain.shells[str(shell.id).upper()].owner = account_of(plain).principal
    assert caught.value.code == 2150858843


def test_who_is_not_signed_in_is_told_how_to(plain: WinRmServer) -> None:
    answer = httpx.post(f"{plain.url}/wsman", content=b"", trust_env=False)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Negotiate")
    plain.is_basic_allowed = True
    assert "Basic" in httpx.post(f"{plain.url}/wsman", trust_env=False).headers["WWW-Authenticate"]


def test_what_is_not_sealed_is_refused_over_http(plain: WinRmServer) -> None:
    plain.is_basic_allowed = True
    account = account_of(plain)
    credentials = base64.b64encode(f"{account.principal}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/soap+xml"}
    assert httpx.post(f"{plain.url}/wsman", content=b"<x/>", headers=headers, trust_env=False).status_code == 500


def test_a_script_nobody_knows_is_an_error(plain: WinRmServer) -> None:
    document = {"s": "# deskyard-script: dance 1\n", "p": {}, "v": 1}
    with client(plain) as wsman, WinRS(wsman) as shell:
        process = Process(shell, "powershell.exe", ["-EncodedCommand", "AAAA"], no_shell=False)
        process.begin_invoke()
        process.send(json.dumps(document).encode(), end=True)
        process.end_invoke()
        process.signal(SignalCode.CTRL_C)
    assert (process.rc, b"Lab.UnknownScript" in process.stdout) == (3, True)


def test_garbage_is_no_envelope() -> None:
    with pytest.raises(WsmanFault):
        read(b"<open")


def test_garbage_is_no_sealed_body() -> None:
    with pytest.raises(Unreadable):
        unseal(None, b"--Encrypted Boundary\r\n\tLength=3\r\n--Encrypted Boundary\r\nxx")  # type: ignore[arg-type]
    with pytest.raises(Unreadable):
        unseal(None, b"")  # type: ignore[arg-type]
