"""Opening a vault, its points, and what it says where it cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from disks.errors import Damaged, NewerFormat, NotAVault, NotFound, SinkRefused, VaultRefused, WrongKey
from disks.vault.folder import FolderStore
from disks.vault.points import Configuration, Drive, Nic, Origin
from disks.vault.vault import Vault
from tests.disks.vault.judging import CHUNK, READ_AT, commit
from tests.disks.vault.stores import MemoryStore

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SECRET = b"the letter to Alice"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_place_without_a_vault_is_none(store: MemoryStore) -> None:
    with pytest.raises(NotAVault):
        Vault.open(store)


def test_a_description_that_cannot_be_read_is_no_vault(store: MemoryStore) -> None:
    for content in (b"", b"{}", b"[1]", b"\xff"):
        store.put("vault.json", content)
        with pytest.raises(NotAVault):
            Vault.open(store)


def test_a_vault_is_not_made_over_another(store: MemoryStore) -> None:
    first = Vault.create(store)
    with pytest.raises(VaultRefused):
        Vault.create(store, KEY)
    assert Vault.open(store).id == first.id


def test_a_wrong_key_is_told_at_once(store: MemoryStore) -> None:
    Vault.create(store, KEY)
    for key in (OTHER_KEY, None):
        with pytest.raises(WrongKey):
            Vault.open(store, key)
    assert Vault.open(store, KEY).is_encrypted


def test_a_key_for_a_vault_that_is_not_encrypted_is_refused(store: MemoryStore) -> None:
    Vault.create(store)
    with pytest.raises(WrongKey):
        Vault.open(store, KEY)


def test_a_vault_of_a_later_release_is_left_alone(store: MemoryStore) -> None:
    Vault.create(store)
    told = json.loads(store.get("vault.json"))
    store.put("vault.json", json.dumps(told | {"format": 2, "chunk_size": "otherwise"}).encode())
    with pytest.raises(NewerFormat):
        Vault.open(store)


def test_nothing_readable_lies_in_an_encrypted_vault(store: MemoryStore) -> None:
    vault = Vault.create(store, KEY, chunk_size=CHUNK)
    run = vault.begin("here", "desk", threads=0)
    disk = run.disk("vda", CHUNK)
    disk.write(0, SECRET.ljust(CHUNK, b"."))
    disk.commit()
    point = run.commit(
        origin=Origin("m-1", "Alice's desk"), configuration=Configuration(1, 512, "bios"), read_at=READ_AT
    )
    lying_there = b"".join(name.encode() + content for name, content in store.objects.items())
    assert SECRET not in lying_there
    assert b"Alice" not in lying_there
    assert KEY not in lying_there
    assert vault.open_disk(point, "vda").read(0, len(SECRET)) == SECRET


def test_names_in_an_encrypted_vault_tell_nothing_about_contents() -> None:
    """Else who sees the names can tell which known files a disk holds."""
    names = []
    for key in (None, KEY, OTHER_KEY):
        vault = Vault.create(MemoryStore(), key, chunk_size=CHUNK)
        run = vault.begin("here", "desk", threads=0)
        disk = run.disk("vda", CHUNK)
        disk.write(0, SECRET.ljust(CHUNK, b"."))
        disk.commit()
        names.append(commit(run).disks[0].leaves)
    assert len(set(names)) == 3


def test_a_chunk_put_in_anothers_place_is_found(store: MemoryStore) -> None:
    vault = Vault.create(store, KEY, chunk_size=CHUNK)
    run = vault.begin("here", "desk", threads=0)
    disk = run.disk("vda", CHUNK * 2)
    disk.write(0, b"a" * CHUNK + b"b" * CHUNK)
    disk.commit()
    point = commit(run)
    one, other = (name for name in store.objects if name.startswith("chunks/"))
    store.objects[one] = store.objects[other]
    assert len(vault.verify(point).findings) == 1


def test_a_point_is_read_as_it_was_written(store: MemoryStore) -> None:
    vault = Vault.create(store)
    run = vault.begin("here", "source 7", threads=0)
    for name, size in (("vda", 5), ("../../etc/passwd", 1 << 20)):
        run.disk(name, size).commit()
    configuration = Configuration(
        vcpus=2,
        memory_mib=2048,
        firmware="uefi",
        secure_boot=True,
        nics=(Nic("virtio", "52:54:00:00:00:01", "Büro"),),
        disks=(Drive("vda", "virtio", 5), Drive("../../etc/passwd", "scsi", 1 << 20)),
    )
    origin = Origin("vm-7", "../Ünïcode'\n", "h-1", "esxi-03")
    point = run.commit(origin=origin, configuration=configuration, read_at=READ_AT)
    assert Vault.open(store).point(point.id) == point
    assert point.id == run.id
    assert all(name.isascii() for name in store.objects)


def test_a_changed_point_is_damaged_and_can_be_deleted(store: MemoryStore) -> None:
    vault = Vault.create(store)
    run = vault.begin("here", "desk", threads=0)
    disk = run.disk("vda", 5)
    disk.write(0, b"bytes")
    disk.commit()
    point = commit(run)
    name = f"points/{point.id}"
    whole = store.objects[name]
    for stored in (
        b"",
        whole[:-1],
        bytes([whole[0] ^ 1]) + whole[1:],
        whole[:20] + bytes([whole[20] ^ 4]) + whole[21:],
    ):
        store.objects[name] = stored
        with pytest.raises(Damaged):
            vault.point(point.id)
        with pytest.raises(Damaged):
            vault.collect("here")
    assert vault.point_ids() == [point.id]
    vault.delete_point(point.id)
    assert vault.point_ids() == []


def test_what_is_no_id_is_not_found(store: MemoryStore) -> None:
    vault = Vault.create(store)
    for id in ("", "../vault.json", "7"):
        for ask in (vault.point, vault.delete_point, vault.end_run):
            with pytest.raises(NotFound):
                ask(id)


def test_two_installations_see_whose_points_are_whose(store: MemoryStore) -> None:
    Vault.create(store)
    for installation in ("here", "there"):
        vault = Vault.open(store)
        run = vault.begin(installation, "desk", threads=0)
        assert [open_run.installation for open_run in vault.runs()] == [installation]
        run.disk("vda", 5).commit()
        commit(run)
    assert {point.installation for point in Vault.open(store).points()} == {"here", "there"}


def test_a_read_only_vault_can_be_restored_from_and_says_so_to_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    vault = Vault.create(store, chunk_size=CHUNK)
    run = vault.begin("here", "desk", threads=0)
    disk = run.disk("vda", CHUNK)
    disk.write(0, b"a" * CHUNK)
    disk.commit()
    point = commit(run)

    def refuse(name: str, content: bytes) -> None:
        raise SinkRefused("read-only")

    monkeypatch.setattr(store, "put", refuse)
    assert vault.open_disk(vault.point(point.id), "vda").read(0, 2) == b"aa"
    with pytest.raises(SinkRefused):
        vault.begin("here", "desk")
    next(tmp_path.glob("chunks/*/*")).unlink()
    verdict = vault.verify(point)
    assert (verdict.is_good, verdict.is_noted) == (False, False)
