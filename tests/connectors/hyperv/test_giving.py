"""An image that a host fetches while it grows: what it is given when, and what becomes of answers that are lost."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from connectors.hyperv import giving
from connectors.hyperv.dock import Failed
from connectors.hyperv.giving import Gifts

TABLES = b"tables now"
HEAD = len(TABLES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "LONGEST_POLL_S", 0.05)
    monkeypatch.setattr(giving, "PIECE", 4)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(TABLES)
    return path


@pytest.fixture
def gifts(image: Path) -> Gifts:
    made = Gifts(behind=3)
    assert made.begin("0-a", image) == HEAD
    return made


def grow(gifts: Gifts, image: Path, data: bytes) -> None:
    with image.open("ab") as file:
        file.write(data)
    gifts.grew()


def rest(gifts: Gifts, start: int, number: str = "0-a") -> tuple[int, bytes]:
    return gifts.answer("GET /image", {"x-image": number, "x-from": str(start)}, b"")


def test_what_may_still_change_is_not_given(gifts: Gifts, image: Path) -> None:
    assert rest(gifts, HEAD) == (204, b"")
    grow(gifts, image, b"abc")
    assert rest(gifts, HEAD) == (204, b"")
    grow(gifts, image, b"def")
    assert rest(gifts, HEAD) == (206, b"abc")
    grow(gifts, image, b"ghijklm")
    assert rest(gifts, HEAD + 3) == (206, b"defg")
    assert gifts.answer("GET /head", {"x-image": "0-a"}, b"") == (206, b"")
    gifts.close()


def test_at_the_end_the_rest_is_given_and_the_tables_as_they_are_then(gifts: Gifts, image: Path) -> None:
    grow(gifts, image, b"abcdef")
    assert rest(gifts, HEAD) == (206, b"abc")
    with image.open("r+b") as file:
        file.write(b"tables end")
    gifts.complete()
    assert rest(gifts, HEAD + 3) == (206, b"def")
    status, told = rest(gifts, HEAD + 6)
    assert (status, json.loads(told)) == (
        200,
        {"bytes": HEAD + 6, "head": HEAD, "sha256": sha256(b"abcdef" + b"tables end").hexdigest()},
    )
    assert gifts.answer("GET /head", {"x-image": "0-a"}, b"") == (206, b"tables end")
    assert not gifts.wait(0)
    gifts.answer("POST /done", {"x-image": "0-a"}, b"")
    assert gifts.wait(0)
    gifts.close()


def test_what_was_lost_on_its_way_counts_once(gifts: Gifts, image: Path) -> None:
    grow(gifts, image, b"abcdef")
    assert rest(gifts, HEAD) == (206, b"abc")
    grow(gifts, image, b"ghi")
    assert rest(gifts, HEAD) == (206, b"abcd")
    assert rest(gifts, HEAD + 1) == (206, b"bcde")
    assert rest(gifts, HEAD) == (206, b"abcd")
    gifts.complete()
    assert rest(gifts, HEAD + 5) == (206, b"fghi")
    assert json.loads(rest(gifts, HEAD + 9)[1])["sha256"] == sha256(b"abcdefghi" + TABLES).hexdigest()
    gifts.close()


@pytest.mark.parametrize("start", ["0", str(HEAD - 1), str(HEAD + 1), "-1", "x", ""])
def test_nothing_is_given_from_where_nobody_should_ask(gifts: Gifts, image: Path, start: str) -> None:
    grow(gifts, image, b"abcdef")
    assert gifts.answer("GET /image", {"x-image": "0-a", "x-from": start}, b"") == (416, b"")
    gifts.close()


def test_another_images_errand_is_refused(gifts: Gifts, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other tables")
    gifts.begin("1-b", other)
    for request in ("GET /image", "GET /head", "POST /done"):
        assert gifts.answer(request, {"x-image": "0-a", "x-from": str(HEAD)}, b"") == (410, b"")
        assert gifts.answer(request, {}, b"") == (410, b"")
    assert not gifts.wait(0)
    assert gifts.answer("GET /secrets", {"x-image": "1-b"}, b"") == (404, b"")
    gifts.close()


def test_a_host_that_waits_is_told_when_the_image_is_given_up(
    gifts: Gifts, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "LONGEST_POLL_S", 30.0)
    found: list[tuple[int, bytes]] = []
    host = threading.Thread(target=lambda: found.append(rest(gifts, HEAD)), daemon=True)
    host.start()
    while not gifts.heard_at:
        host.join(0.01)
    gifts.give_up()
    host.join(30)
    assert found == [(410, b"")]
    assert gifts.waiting == 0
    gifts.close()
    assert rest(gifts, HEAD) == (410, b"")


def test_a_host_that_fails_is_heard(gifts: Gifts) -> None:
    gifts.answer("POST /done", {"x-image": "0-a", "x-fault": "1"}, b'{"id": "Deskyard.Garbled"}')
    with pytest.raises(Failed) as failed:
        gifts.wait(0)
    assert failed.value.fault == {"id": "Deskyard.Garbled"}
    gifts.answer("POST /done", {"x-image": "0-a", "x-fault": "1"}, b"nonsense")
    with pytest.raises(Failed):
        gifts.wait(0)
    gifts.close()
