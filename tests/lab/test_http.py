"""What every server of the laboratory does with a request, and its faults."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from lab.http import LabServer, Request, Response
from lab.world import World


class Counter(LabServer):
    """Counts how often it was asked."""

    count = 0
    sessions = 1

    def handle(self, request: Request) -> Response:
        self.count += 1
        return Response(200, f"{request.method} {request.path} {request.query} {len(request.body)}".encode())

    def expire_sessions(self) -> None:
        self.sessions = 0


@pytest.fixture
def server() -> Iterator[Counter]:
    counter = Counter(World(), "127.0.0.9")
    counter.start()
    yield counter
    counter.stop()


@pytest.fixture
def client(server: Counter) -> Iterator[httpx.Client]:
    with trusting(server) as made:
        yield made


def trusting(server: LabServer, timeout_s: float = 5.0) -> httpx.Client:
    assert server.certificate
    context = ssl.create_default_context(cadata=server.certificate.pem)
    return httpx.Client(base_url=server.url, verify=context, timeout=timeout_s, trust_env=False)


def test_a_request_is_answered_and_recorded_on_a_kept_connection(server: Counter, client: httpx.Client) -> None:
    for _ in range(2):
        answer = client.post("/a%20b?x=1", content=b"12345")
        assert answer.text == "POST /a b {'x': '1'} 5"
    assert [(seen.label, seen.body, seen.status) for seen in server.requests] == [("POST /a b", b"12345", 200)] * 2


def test_a_lab_beyond_loopback_is_refused() -> None:
    with pytest.raises(ValueError, match="loopback"):
        Counter(World(), "192.0.2.1")


@pytest.mark.parametrize(("kind", "done"), [("drop_before", 0), ("drop_after", 1), ("truncate", 1)])
def test_an_answer_is_lost_before_or_after_it_was_done(
    kind: str, done: int, server: Counter, client: httpx.Client
) -> None:
    server.faults.add(kind, "^GET /lost")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/lost")
    assert server.count == done
    assert client.get("/lost").status_code == 200, "once"


def test_a_status_is_answered_as_often_as_told(server: Counter, client: httpx.Client) -> None:
    server.faults.add("status", "GET", status=429, count=2, skip=1, headers={"Retry-After": "3"})
    assert [client.get("/").status_code for _ in range(4)] == [200, 429, 429, 200]


def test_what_hangs_lets_go_when_the_faults_are_cleared(server: Counter) -> None:
    server.faults.add("hang")
    with trusting(server, 0.3) as client, pytest.raises(httpx.ReadTimeout):
        client.get("/")
    assert server.count == 0
    server.faults.clear()
    with trusting(server) as client:
        assert client.get("/").status_code == 200


def test_what_is_slow_takes_its_time(server: Counter, client: httpx.Client) -> None:
    server.faults.add("slow", delay_s=0.3)
    began = time.monotonic()
    assert client.get("/").status_code == 200
    assert time.monotonic() - began >= 0.3


def test_sessions_expire_before_the_request_that_strikes(server: Counter, client: httpx.Client) -> None:
    server.faults.add("session_expires")
    client.get("/")
    assert server.sessions == 0


def test_an_endpoint_that_is_cut_off_refuses_and_comes_back_at_its_address(
    server: Counter, client: httpx.Client
) -> None:
    client.get("/")
    server.cut_off()
    with pytest.raises(httpx.TransportError):
        client.get("/")
    server.come_back()
    assert client.get("/").status_code == 200


def test_an_endpoint_that_comes_back_waits_for_whoever_has_its_port(server: Counter, client: httpx.Client) -> None:
    server.cut_off()
    with socket.socket() as taken:
        taken.bind((server.address, server.port))
        threading.Timer(0.3, taken.close).start()
        server.come_back()
    assert client.get("/").status_code == 200


def test_a_changed_certificate_is_not_the_trusted_one(server: Counter) -> None:
    with trusting(server) as before:
        server.change_certificate()
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            before.get("/")
    with trusting(server) as after:
        assert after.get("/").status_code == 200


def test_an_unknown_fault_is_refused_in_words(server: Counter) -> None:
    with pytest.raises(ValueError, match="There is no fault 'explode'"):
        server.faults.add("explode")


def test_a_certificate_that_is_kept_in_a_folder_outlives_its_server(tmp_path: Path) -> None:
    first = Counter(World(), "127.0.0.9", certificate_folder=tmp_path)
    second = Counter(World(), "127.0.0.9", certificate_folder=tmp_path)
    assert first.certificate
    assert first.certificate == second.certificate
    assert first.change_certificate() != second.certificate


class Store(LabServer):
    """Keeps what is put there in files, and gives it back piece by piece."""

    kept = b""
    is_told = True

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        return tempfile.TemporaryFile() if method == "PUT" else None

    def handle(self, request: Request) -> Response:
        if request.file is not None:
            self.kept = request.file.read()
            return Response(201)
        pieces = iter([self.kept[:100_000], self.kept[100_000:]])
        return Response(pieces=pieces, length=len(self.kept) if self.is_told else None)


LARGE = bytes(range(256)) * 1000


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store(World(), "127.0.0.9")
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("is_told", [True, False], ids=["with its length", "in chunks"])
def test_large_bodies_go_in_and_out_through_files(is_told: bool, store: Store) -> None:
    store.is_told = is_told
    body = (LARGE[at : at + 1000] for at in range(0, len(LARGE), 1000))
    with trusting(store) as client:
        client.put("/x", content=LARGE if is_told else body)
        assert store.kept == LARGE
        assert client.get("/x").content == LARGE
        store.faults.add("truncate", "^GET")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/x")
