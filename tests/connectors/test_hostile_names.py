"""Machines are brought up under names that file systems, shells and wires stumble over: refused in words, or kept as
they are. No name becomes a path."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.base import Surroundings
from connectors.errors import Conflict, Unsupported
from connectors.registry import load
from connectors.replication import LandingWish, Lands
from disks.vault.points import Configuration, Drive
from tests.connectors.contract import OURS, new_key, soon
from tests.crash import grounds
from tests.crash.grounds import KINDS, MIB, Ground
from tests.support.samba import SambaServer, private_samba

NAMES = (
    "../../etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", 'quo"te', "apo'strophe", "$(reboot)", "`x`", "%2f%00", "con",
    "tür-ø-桌面-🖥", "x" * 63, "x" * 200, "-rf", "a;b|c&d", "two  blanks", "<b>&amp;</b>", "*?[a]", "{0}", "%s",
    "a,b;c=d", " lead", "line\nbreak", "nul\0", "tab\t", "\u202egnp.exe",
)  # fmt: skip


@pytest.fixture(scope="module")
def file_server() -> Iterator[SambaServer]:
    with private_samba() as server:
        yield server


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path, file_server: SambaServer) -> Iterator[Ground]:
    with grounds.ground_of(request.param, tmp_path, file_server) as made:
        yield made
    for path in file_server.files.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_machine_is_brought_up_under_any_name_or_refused_in_words(ground: Ground, tmp_path: Path) -> None:
    workdir = tmp_path / "connector"
    workdir.mkdir()
    connector = load(ground.kind)(ground.settings, Surroundings(installation=OURS, workdir=workdir))  # type: ignore[call-arg]
    assert isinstance(connector, Lands)
    configuration = Configuration(vcpus=1, memory_mib=256, firmware="bios", disks=(Drive("vda", "virtio", MIB),))
    made: list[str] = []
    refused: dict[str, str] = {}
    for name in NAMES:
        wish = LandingWish(key=new_key(), name=name, configuration=configuration, storage=ground.storage, networks=())
        try:
            landing = connector.land(wish, soon(30))
        except (Unsupported, Conflict) as error:
            refused[name] = error.message
            assert ground.made(wish.key) == []
            continue
        sink = landing.open("vda")
        sink.write(0, name.encode()[:512].ljust(512, b"."))
        sink.commit()
        ref = landing.finish(soon(30))
        landing.close()
        assert ground.made(wish.key) == [ref.id]
        assert _shown(ground, ref.id) == name
        assert grounds.now(ground, ref.id)[:512] == name.encode()[:512].ljust(512, b".")
        made.append(ref.id)
    connector.close()
    assert ground.left(made) == {}
    assert {"line\nbreak", "nul\0", "tab\t", "\u202egnp.exe"} <= refused.keys()
    assert not {"a/b", "a\\b", "..", "tür-ø-桌面-🖥", "$(reboot)", "x" * 63} & refused.keys()
    assert all(words.isprintable() and words.rstrip().endswith(".") for words in refused.values()), refused
    assert not [file for file in workdir.iterdir() if file.suffix != ".pem"], "but whom it trusts"


def _shown(ground: Ground, machine: str) -> str:
    """What people see it called on the platform."""
    with ground.world as world:
        return world.machines[machine].name
