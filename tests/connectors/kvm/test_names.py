"""Names given to things at the hypervisor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import Unsupported
from connectors.kvm import names

KEY = "6D0F9A52-6F62-4D6E-9F5E-2F3A5A0F7C11"


def test_the_key_is_the_machines_uuid_in_libvirts_spelling() -> None:
    assert names.uuid_of(KEY) == KEY.lower()


def test_a_volume_tells_whose_it_is() -> None:
    name = names.volume_name("11111111-1111-4111-8111-111111111111", KEY, "vda", "qcow2")
    assert name.startswith(names.volume_prefix("11111111-1111-4111-8111-111111111111"))
    assert KEY.lower() in name


def test_addresses_are_the_same_at_every_attempt_and_differ_between_nics() -> None:
    assert names.mac_of(KEY, 0) == names.mac_of(KEY.lower(), 0)
    assert names.mac_of(KEY, 0) != names.mac_of(KEY, 1)


@given(st.uuids(), st.integers(0, 20))
def test_addresses_are_local_unicast_ones(key: object, nic: int) -> None:
    first = int(names.mac_of(str(key), nic).split(":")[0], 16)
    assert first & 1 == 0, "unicast"
    assert first & 2 == 2, "locally administered"


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "../up", "a/b", "nul\x00", "x" * 300, "é" * 150, "\u2028"])
def test_a_name_that_libvirt_cannot_take_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(Unsupported, match="name"):
        names.require_usable(name)


@pytest.mark.parametrize("name", ["desk-1", "two words", 'it\'s "quoted" <&>', "Grüße-日本", "x" * 200, ".."])
def test_an_odd_but_possible_name_is_taken(name: str) -> None:
    names.require_usable(name)
