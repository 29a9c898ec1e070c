"""Whether machines that go somewhere together find room there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.room import Need, Room, shortages


def test_what_goes_first_takes_its_room_from_those_that_follow() -> None:
    found = shortages([Need(60, 10), Need(60, 10), Need(40, 10)], Room("fast", 100, [1000]))
    assert found[0] == found[2] == ""
    assert found[1] == "fast has 40 MiB left for it, and its disks may take 60 MiB."


def test_memory_is_that_of_one_host_and_not_of_all_together() -> None:
    found = shortages([Need(1, 600), Need(1, 600), Need(1, 600)], Room("fast", 100, [1000, 800]))
    assert found[:2] == ["", ""]
    assert found[2] == "No host has more than 400 MiB of memory left for it, and it needs 600 MiB."


def test_where_nothing_is_known_of_hosts_nothing_is_said_of_memory() -> None:
    assert shortages([Need(1, 600)], Room("fast", 100, [])) == [""]


def test_a_storage_that_promised_more_than_it_has_has_nothing_left() -> None:
    (words,) = shortages([Need(1, 1)], Room("fast", -5, [-3]))
    assert words == (
        "fast has 0 B left for it, and its disks may take 1 MiB. "
        "No host has more than 0 B of memory left for it, and it needs 1 MiB."
    )


@given(
    st.lists(st.builds(Need, st.integers(0, 500), st.integers(0, 500)), max_size=20),
    st.integers(0, 2000),
    st.lists(st.integers(0, 1000), min_size=1, max_size=4),
)
def test_what_fits_never_takes_more_than_there_is(needs: list[Need], storage: int, hosts: list[int]) -> None:
    found = shortages(needs, Room("fast", storage, hosts))
    taken = [need for need, words in zip(needs, found, strict=True) if not words]
    assert sum(need.disk_mib for need in taken) <= storage
    assert sum(need.memory_mib for need in taken) <= sum(hosts)
