"""Working directories of connectors: whose owner is gone, however it went, goes; what somebody holds stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from broker.hypervisors import workdirs


def test_one_that_is_given_back_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    place = workdirs.take(tmp_path)
    assert place.folder.stat().st_mode & 0o777 == 0o700
    (place.folder / "half").mkdir()
    (place.folder / "half" / "image.vmdk").write_bytes(b"much")
    place.give_back()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    mine = workdirs.take(tmp_path)
    heard, told = os.pipe()
    pid = os.fork()
    if not pid:
        dead = workdirs.take(tmp_path)
        (dead.folder / "image.vhdx").write_bytes(b"as large as a disk")
        os.write(told, dead.folder.name.encode())
        signal.pause()
    left = tmp_path / os.read(heard, 100).decode()
    third = workdirs.take(tmp_path)
    assert left.is_dir(), "its owner lives"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for handle in (heard, told):
        os.close(handle)
    fourth = workdirs.take(tmp_path)
    assert set(tmp_path.iterdir()) == {mine.folder, third.folder, fourth.folder}
    for place in (mine, third, fourth):
        place.give_back()


def test_those_of_an_earlier_release_which_held_no_lock_are_left_alone(tmp_path: Path) -> None:
    old = tmp_path / "0f3c5c1e7a5b4f0e9d5f0c1f2a3b4c5d"
    old.mkdir()
    workdirs.take(tmp_path).give_back()
    assert list(tmp_path.iterdir()) == [old]
