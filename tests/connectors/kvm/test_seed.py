"""NoCloud seeds."""

from __future__ import annotations

import io
import json

import pycdlib
import pytest

from connectors.base import GuestSeed
from connectors.kvm.seed import seed_iso


def read(image: bytes, name: str) -> str:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    content = io.BytesIO()
    iso.get_file_from_iso_fp(content, joliet_path=f"/{name}")
    iso.close()
    return content.getvalue().decode()


@pytest.mark.parametrize("hostname", ["desk-1", 'a"b: {c}\nuser-data: evil', "Grüße"])
def test_a_seed_holds_hostname_and_instance_whatever_they_are(hostname: str) -> None:
    meta_data = json.loads(read(seed_iso(GuestSeed(hostname), "key-1"), "meta-data"))
    assert meta_data == {"instance-id": "key-1", "local-hostname": hostname}


def test_user_data_is_handed_on_unchanged() -> None:
    text = "#cloud-config\nruncmd: [echo]\n"
    assert read(seed_iso(GuestSeed("a", text), "k"), "user-data") == text


def test_without_user_data_there_is_an_empty_document() -> None:
    assert read(seed_iso(GuestSeed("a"), "k"), "user-data").startswith("#cloud-config")


def test_cloud_init_finds_the_volume_by_its_label() -> None:
    assert b"cidata" in seed_iso(GuestSeed("a"), "k")[0x8000:0x8800]
