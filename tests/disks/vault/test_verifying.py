"""Damage in the vault is found, named, and healed by the next copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from disks.base import Extent
from disks.copying import copy
from disks.errors import Cancelled, Damaged
from disks.extents import Widened
from disks.vault.points import RecoveryPoint
from disks.vault.vault import Vault
from disks.vault.verifying import Fault
from tests.disks.memory import MemorySource
from tests.disks.vault.judging import CHUNK, commit
from tests.disks.vault.stores import MemoryStore

CONTENT = b"a" * CHUNK + b"b" * CHUNK + bytes(CHUNK) + b"d" * 100


def flip(store: MemoryStore, name: str) -> None:
    content = bytearray(store.objects[name])
    content[len(content) // 2] ^= 1
    store.objects[name] = bytes(content)


def truncate(store: MemoryStore, name: str) -> None:
    store.objects[name] = store.objects[name][:-3]


def empty(store: MemoryStore, name: str) -> None:
    store.objects[name] = b""


def lose(store: MemoryStore, name: str) -> None:
    del store.objects[name]


HARM = [flip, truncate, empty, lose]
Harm = Callable[[MemoryStore, str], None]


@pytest.fixture(params=[None, bytes(32)], ids=["plain", "encrypted"])
def vault(request: pytest.FixtureRequest) -> Vault:
    return Vault.create(MemoryStore(), request.param, chunk_size=CHUNK)


@pytest.fixture
def store(vault: Vault) -> MemoryStore:
    store = vault._store
    assert isinstance(store, MemoryStore)
    return store


def copied(vault: Vault, content: bytes = CONTENT, base: RecoveryPoint | None = None) -> RecoveryPoint:
    """The content, of which only what is damaged is read if there is a base."""
    run = vault.begin("here", "desk", base)
    disk = run.disk("vda", len(content))
    source = MemorySource(content, None if base is None else [])
    copy(Widened(source, run.must_read("vda")), disk)
    disk.commit()
    return commit(run)


def place_of(vault: Vault, point: RecoveryPoint, index: int) -> str:
    return vault._objects.place("chunks", vault._objects.chunk_names(point.disks[0].leaves[0])[index])


def test_an_undamaged_point_is_good(vault: Vault) -> None:
    verdict = vault.verify(copied(vault))
    assert verdict.is_good
    assert verdict.is_noted


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_chunk_is_found_named_and_healed(vault: Vault, store: MemoryStore, harm: Harm) -> None:
    point = copied(vault)
    harm(store, place_of(vault, point, 1))

    (finding,) = vault.verify(point).findings
    assert (finding.disk, finding.extent) == ("vda", Extent(CHUNK, CHUNK))
    assert finding.fault is (Fault.MISSING if harm is lose else Fault.BROKEN)
    assert f"broken/{finding.name}" in store.objects

    run = vault.begin("here", "desk", point)
    run.disk("vda", len(CONTENT))
    assert run.must_read("vda") == [Extent(CHUNK, CHUNK)]
    run.abandon()

    healed = copied(vault, base=point)
    assert vault.verify(healed).is_good
    assert vault.verify(point).is_good
    assert not any(name.startswith("broken/") for name in store.objects)


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_list_of_chunks_is_found_named_and_healed(vault: Vault, store: MemoryStore, harm: Harm) -> None:
    point = copied(vault)
    harm(store, vault._objects.place("leaves", point.disks[0].leaves[0]))

    (finding,) = vault.verify(point).findings
    assert finding.extent == Extent(0, len(CONTENT))
    with pytest.raises(Damaged):
        vault.collect("here")

    copied(vault, base=point)
    assert vault.verify(point).is_good
    vault.collect("here")


def test_each_of_several_damages_is_reported(vault: Vault, store: MemoryStore) -> None:
    point = copied(vault)
    flip(store, place_of(vault, point, 0))
    lose(store, place_of(vault, point, 3))
    findings = vault.verify(point).findings
    assert [finding.extent for finding in findings] == [Extent(0, CHUNK), Extent(3 * CHUNK, 100)]


@pytest.mark.parametrize("harm", HARM)
def test_damage_that_is_not_read_anew_is_in_no_new_point(vault: Vault, store: MemoryStore, harm: Harm) -> None:
    point = copied(vault)
    harm(store, place_of(vault, point, 1))
    vault.verify(point)
    run = vault.begin("here", "desk", point)
    run.disk("vda", len(CONTENT)).commit()
    with pytest.raises(Damaged):
        commit(run)
    run.abandon()
    assert vault.point_ids() == [point.id]


def test_a_missing_chunk_that_is_inherited_is_found_by_verification_and_healed_by_the_run_after(
    vault: Vault, store: MemoryStore
) -> None:
    """A commit takes the base's word for what it inherits: only reading all of it would find what harmed the store."""
    point = copied(vault)
    lose(store, place_of(vault, point, 1))
    run = vault.begin("here", "desk", point)
    run.disk("vda", len(CONTENT)).commit()
    inherited = commit(run)
    assert not vault.verify(inherited).is_good
    assert vault.verify(copied(vault, base=inherited)).is_good


def test_a_damaged_base_chunk_found_while_merging_is_read_anew_next_time(vault: Vault, store: MemoryStore) -> None:
    point = copied(vault)
    flip(store, place_of(vault, point, 1))
    run = vault.begin("here", "desk", point)
    disk = run.disk("vda", len(CONTENT))
    disk.write(CHUNK + 5, b"x")
    with pytest.raises(Damaged):
        disk.commit()
    run.abandon()
    assert vault.verify(copied(vault, base=point)).is_good


def test_a_damaged_chunk_whose_disk_has_changed_since_stays_noted_until_its_point_is_gone(
    vault: Vault, store: MemoryStore
) -> None:
    point = copied(vault)
    flip(store, place_of(vault, point, 1))
    vault.verify(point)
    changed = CONTENT[:CHUNK] + b"n" * CHUNK + CONTENT[2 * CHUNK :]
    newer = copied(vault, changed, base=point)
    assert vault.verify(newer).is_good
    assert not vault.verify(point).is_good

    vault.delete_point(point.id)
    vault.collect("here")
    assert not any(name.startswith("broken/") for name in store.objects)
    assert vault.verify(newer).is_good


def test_restoring_a_damaged_chunk_fails_and_never_gives_other_bytes(vault: Vault, store: MemoryStore) -> None:
    point = copied(vault)
    flip(store, place_of(vault, point, 1))
    disk = vault.open_disk(point, "vda")
    assert disk.read(0, CHUNK) == CONTENT[:CHUNK]
    with pytest.raises(Damaged):
        disk.read(CHUNK, 1)


def test_a_verification_can_be_stopped(vault: Vault) -> None:
    with pytest.raises(Cancelled):
        vault.verify(copied(vault), is_cancelled=lambda: True)


def test_a_verification_tells_how_far_it_is(vault: Vault) -> None:
    seen: list[tuple[int, int]] = []
    vault.verify(copied(vault), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
