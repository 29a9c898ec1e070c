"""What every store promises, judged on a folder, on a bucket behind a real socket, and on the tests' own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto.server import ThreadedMotoServer

from disks.errors import DiskError, NotFound, OutOfSpace, Refused, SinkRefused, StoreLost
from disks.vault import s3 as s3_store
from disks.vault.folder import HALF, FolderStore
from disks.vault.s3 import Bucket, S3Store
from disks.vault.store import Store
from disks.vault.vault import Vault
from tests.disks.vault.judging import CHUNK, commit
from tests.disks.vault.stores import MemoryStore


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a stand-in for S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> Bucket:
    bucket = Bucket(
        f"vault-{tmp_path.name[-20:].replace('_', '-').lower()}", s3, "", "key", "secret", prefix="deskyard/"
    )
    S3Store(bucket)._client.create_bucket(Bucket=bucket.name)
    return bucket


@pytest.fixture(params=["folder", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: dict[str, Any] = {
        "folder": lambda: FolderStore(tmp_path),
        "s3": lambda: S3Store(request.getfixturevalue("bucket")),
        "memory": MemoryStore,
    }
    store: Store = made[request.param]()
    yield store
    store.close()


def test_what_was_put_is_there(store: Store) -> None:
    store.put("chunks/ab/abcd", b"first")
    store.put("chunks/ab/abcd", b"second")
    assert store.get("chunks/ab/abcd") == b"second"
    assert store.exists("chunks/ab/abcd")
    assert not store.exists("chunks/ab/other")
    assert store.present(["chunks/ab/abcd", "chunks/cd/none"]) == {"chunks/ab/abcd"}


def test_what_was_not_put_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.get("points/none")
    with pytest.raises(NotFound):
        store.move("points/none", "points/other")
    store.delete("points/none")


def test_a_listing_names_what_begins_so(store: Store) -> None:
    for name in ("chunks/ab/1", "chunks/cd/2", "chunksy/3", "points/4", "vault.json"):
        store.put(name, b"")
    assert set(store.list("chunks/")) == {"chunks/ab/1", "chunks/cd/2"}
    assert set(store.list("nothing/")) == set()


def test_a_long_listing_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "PAGE", 10)
    names = {f"runs/{number}" for number in range(25)}
    for name in names:
        store.put(name, b"")
    assert set(store.list("runs/")) == names


def test_a_move_replaces_what_is_there(store: Store) -> None:
    store.put("chunks/ab/1", b"new")
    store.put("trash/m/chunks/ab/1", b"old")
    store.move("chunks/ab/1", "trash/m/chunks/ab/1")
    assert store.get("trash/m/chunks/ab/1") == b"new"
    assert not store.exists("chunks/ab/1")


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "/etc/passwd", "a//b", "a/../b", ".hidden", "A", "a b", "a\0", "ü", ""]
)
def test_a_name_that_could_be_a_path_is_none(store: Store, name: str) -> None:
    for act in (store.exists, lambda it: store.put(it, b""), lambda it: store.move("a", it)):
        with pytest.raises((ValueError, NotFound)):
            act(name)


def test_what_is_there_is_what_was_put_last_whoever_reads_meanwhile(store: Store) -> None:
    """Never half an object, never none where one was replaced."""
    contents = {bytes([letter]) * 200_000 for letter in b"ab"}
    store.put("points/1", min(contents))
    seen: set[bytes] = set()
    reader = threading.Thread(target=lambda: seen.update(store.get("points/1") for _ in range(50)))
    reader.start()
    for _ in range(10):
        for content in sorted(contents):
            store.put("points/1", content)
    reader.join()
    assert seen <= contents


@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "encrypted"])
def test_a_vault_lives_in_any_store(store: Store, key: bytes | None) -> None:
    """Copied, verified, restored, deleted, collected: nothing is left but the vault."""
    vault = Vault.create(store, key, chunk_size=CHUNK)
    content = b"a" * CHUNK + bytes(CHUNK) + b"c" * CHUNK
    base = None
    for letter in b"xyz":
        content = bytes([letter]) + content[1:]
        run = vault.begin("here", "desk", base)
        disk = run.disk("vda", len(content))
        disk.write(0, content if base is None else content[:1])
        disk.commit()
        base = commit(run)
    assert base is not None
    assert vault.verify(base).is_good
    assert vault.open_disk(base, "vda").read(0, len(content)) == content

    older = [point.id for point in vault.points() if point.id != base.id]
    for id in older:
        vault.delete_point(id)
    assert vault.collect("here").deleted == 4  # their first chunks and their leaves
    assert vault.verify(base).is_good
    vault.delete_point(base.id)
    vault.collect("here")
    assert list(store.list("")) == ["vault.json"]


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_a_writer_that_dies_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            store.put("chunks/ab/1", b"half")
    assert list(store.list("")) == []
    assert list((tmp_path / HALF).iterdir())
    store.tidy()
    assert not list((tmp_path / HALF).iterdir())


def test_what_a_living_writer_has_half_written_is_not_tidied_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fsync = FolderStore(tmp_path), os.fsync

    def tidying(handle: int) -> None:
        FolderStore(tmp_path).tidy()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", tidying)
    store.put("chunks/ab/1", b"whole")
    assert store.get("chunks/ab/1") == b"whole"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, OutOfSpace),
        (errno.EDQUOT, OutOfSpace),
        (errno.EROFS, SinkRefused),
        (errno.EACCES, SinkRefused),
        (errno.EIO, StoreLost),
        (errno.ESTALE, StoreLost),
    ],
)
def test_a_folder_that_cannot_be_written_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[DiskError]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    store = FolderStore(tmp_path)
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(error) as raised:
        store.put("chunks/ab/1", b"content")
    assert str(tmp_path) in raised.value.message
    assert not list((tmp_path / HALF).iterdir())


def test_a_folder_that_vanished_is_not_an_empty_vault(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    store = FolderStore(folder)
    folder.rmdir()
    for act in (lambda: store.exists("vault.json"), lambda: list(store.list("points/")), lambda: store.put("a", b"")):
        with pytest.raises(StoreLost):
            act()
    assert not folder.exists()
    with pytest.raises(Refused):
        FolderStore(folder)


# --- a bucket ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDenied", SinkRefused),
        ("QuotaExceeded", OutOfSpace),
        ("XMinioStorageFull", OutOfSpace),
        ("SlowDown", StoreLost),
        ("NoSuchBucket", Refused),
        ("SignatureDoesNotMatch", Refused),
    ],
)
def test_a_bucket_that_cannot_be_written_says_why(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, error: type[DiskError]
) -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")

    store = S3Store(bucket)
    monkeypatch.setattr(store._client, "put_object", refuse)
    with pytest.raises(error) as raised:
        store.put("chunks/ab/1", b"content")
    assert bucket.name in raised.value.message
    assert bucket.secret_key not in raised.value.message


def test_a_bucket_that_does_not_answer_is_lost(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url=bucket.endpoint)

    store = S3Store(bucket)
    monkeypatch.setattr(store._client, "head_object", vanish)
    with pytest.raises(StoreLost):
        store.exists("vault.json")


def test_a_bucket_that_is_not_there_is_refused(s3: str) -> None:
    with pytest.raises(Refused):
        list(S3Store(Bucket("nowhere", s3, "", "key", "secret")).list("points/"))
