"""The mover's door for hosts: who comes in, what becomes of questions whose answers are lost."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.errors import Unreachable, Unsupported
from connectors.hyperv import asking
from connectors.hyperv.asking import Questions
from connectors.hyperv.dock import Dock, Failed, Silent
from connectors.hyperv.settings import HypervSettings
from lab.hyperv.courier import Courier, Mover, WrongCertificate

SETTINGS = HypervSettings(hosts="127.0.0.3", user="u", password="p")
NONE: dict[str, str] = {}


@pytest.fixture
def questions() -> Questions:
    return Questions()


@pytest.fixture
def way(tmp_path: Path, questions: Questions) -> Iterator[Dock]:
    made = Dock("127.0.0.3", SETTINGS, tmp_path, questions)
    yield made
    made.close()
    assert list(tmp_path.glob("hyperv-dock-*")) == []


@pytest.fixture
def host(way: Dock) -> Iterator[Courier]:
    made = Courier(Mover.of(way.told))
    yield made
    made.close()


class Asking(threading.Thread):
    """Somebody who reads a disk."""

    def __init__(self, questions: Questions, length: int = 4, silence_s: float = 5.0) -> None:
        super().__init__(daemon=True)
        self.questions, self.length, self.silence_s = questions, length, silence_s
        self.result: bytes | Exception = b""
        self.start()

    def run(self) -> None:
        try:
            self.result = self.questions.ask("read", "scsi-0-0", 512, self.length, self.silence_s)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.result = error


def asked(host: Courier, headers: dict[str, str] = NONE, body: bytes = b"") -> dict[str, object]:
    status, told = host.ask("POST", "/work", headers, body)
    assert status == 200
    found: dict[str, object] = json.loads(told)
    return found


def test_a_question_goes_out_and_its_answer_comes_in(way: Dock, questions: Questions, host: Courier) -> None:
    reader = Asking(questions)
    told = asked(host)
    assert (told["what"], told["disk"], told["offset"], told["length"]) == ("read", "scsi-0-0", 512, 4)
    last = Asking(questions)
    packed = zlib.compressobj(wbits=-15)
    body = packed.compress(b"four") + packed.flush()
    again = asked(host, {"X-Answer": str(told["number"]), "Content-Encoding": "deflate"}, body)
    reader.join(30)
    assert reader.result == b"four"
    assert again["number"] != told["number"]
    way.close()
    last.join(30)
    assert isinstance(last.result, Silent)


def test_a_question_whose_answer_is_lost_is_asked_again(way: Dock, questions: Questions, host: Courier) -> None:
    reader = Asking(questions)
    told = asked(host)
    host.close()
    other = Courier(Mover.of(way.told))
    assert asked(other) == told
    threading.Thread(target=asked, args=(other, {"X-Answer": str(told["number"])}, b"four"), daemon=True).start()
    reader.join(30)
    assert reader.result == b"four"
    way.close()
    other.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"three"),
        ({"Content-Encoding": "deflate"}, b"\xff\xff\xff"),
        ({"Content-Encoding": "deflate"}, zlib.compress(bytes(1 << 20), 9)[2:-4]),
        ({"X-Fault": "1"}, b'{"id": "OperationFailed", "hresult": 0}'),
    ],
    ids=["too short", "no deflate", "a bomb", "a fault"],
)
def test_an_answer_that_is_none_is_a_failure(
    way: Dock, questions: Questions, host: Courier, headers: dict[str, str], body: bytes
) -> None:
    reader = Asking(questions)
    told = asked(host)
    threading.Thread(target=asked, args=(host, {"X-Answer": str(told["number"]), **headers}, body), daemon=True).start()
    reader.join(30)
    assert isinstance(reader.result, Failed)
    way.close()


def test_a_host_that_is_silent_is_not_waited_for(questions: Questions) -> None:
    began_at = time.monotonic()
    reader = Asking(questions, silence_s=0.4)
    reader.join(30)
    assert isinstance(reader.result, Silent)
    assert time.monotonic() < began_at + 3


def test_another_certificate_is_refused_before_a_byte_is_sent(way: Dock, questions: Questions) -> None:
    other = Courier(dataclasses.replace(Mover.of(way.told), thumbprint="ab" * 32))
    with pytest.raises(WrongCertificate):
        other.ask("POST", "/work")
    assert questions.heard_at == 0


@pytest.mark.parametrize("token", ["", "guessed", "x" * 43])
def test_without_the_token_nobody_is_told_anything(way: Dock, questions: Questions, token: str) -> None:
    Asking(questions)
    other = Courier(dataclasses.replace(Mover.of(way.told), token=token))
    for request in (("POST", "/work"), ("GET", "/image"), ("POST", "/done"), ("GET", "/")):
        assert other.ask(*request) == (403, b"")
    assert questions.heard_at == 0
    other.close()


def test_the_token_is_good_for_one_address_alone(way: Dock) -> None:
    token = str(way.told["token"])
    headers = {"authorization": f"Bearer {token}"}
    assert way.answer("10.0.0.1", "GET /nothing", headers, b"")[0] == 404
    assert way.answer("10.0.0.2", "GET /nothing", headers, b"") == (403, b"")


def test_two_docks_have_tokens_and_certificates_of_their_own(way: Dock, tmp_path: Path) -> None:
    other = Dock("127.0.0.3", SETTINGS, tmp_path, Questions())
    assert way.told["token"] != other.told["token"]
    assert way.thumbprint != other.thumbprint
    other.close()


def test_once_it_is_closed_the_host_is_told_and_nobody_waits(way: Dock, questions: Questions) -> None:
    reader = Asking(questions, silence_s=60)
    while not questions.waiting:
        time.sleep(0.01)
    way.close()
    reader.join(30)
    assert isinstance(reader.result, Silent)
    with pytest.raises(Silent):
        questions.ask("read", "scsi-0-0", 0, 512, 60)
    way.close()


def test_a_host_that_waits_for_work_is_told_when_it_is_over(
    way: Dock, host: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LONGEST_POLL_S", 0.1)
    assert asked(host) == {"what": "wait"}


def test_movers_listen_where_they_are_told_to(tmp_path: Path) -> None:
    first = Dock("127.0.0.3", SETTINGS, tmp_path, Questions())
    settings = dataclasses.replace(SETTINGS, mover_address="127.0.0.1", mover_ports=f"{first.port}-{first.port + 40}")
    second = Dock("127.0.0.3", settings, tmp_path, Questions())
    assert first.port < second.port <= first.port + 40
    with pytest.raises(Unreachable, match="Nothing is free among the movers' ports"):
        Dock("127.0.0.3", dataclasses.replace(settings, mover_ports=str(first.port)), tmp_path, Questions())
    first.close()
    second.close()


def test_where_hosts_reach_movers_is_checked_with_the_settings() -> None:
    good = dataclasses.replace(
        SETTINGS, fingerprints="ab" * 32, mover_address="mover.example.org", mover_ports="47000-47019"
    )
    good.require_complete()
    for ports in ("many", "9-1", "0", "1-70000"):
        with pytest.raises(Unsupported, match="Movers' ports are written like"):
            dataclasses.replace(good, mover_ports=ports).require_complete()
    with pytest.raises(Unsupported, match="'a b' is no name and no address"):
        dataclasses.replace(good, mover_address="a b").require_complete()
