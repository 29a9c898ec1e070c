"""A copy into a folder, killed at any moment: no half point, nothing lost, nothing left once its owner has said so."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from disks.vault.folder import FolderStore
from disks.vault.vault import Vault
from tests.disks.vault.judging import commit
from tests.support.effort import examples
from tests.support.prerequisites import REPOSITORY
from tests.support.process import die_with_us

MIB = 1 << 20
CHUNKS = 24
CONTENT = b"".join(bytes([number + 1]) * MIB for number in range(CHUNKS))

COPYING = """
import sys
from pathlib import Path
from disks.vault.folder import FolderStore
from disks.vault.vault import Vault
from tests.disks.vault.judging import commit
from tests.disks.vault.test_deaths import CONTENT
vault = Vault.open(FolderStore(Path(sys.argv[1])))
print("ready", flush=True)
run = vault.begin("here", "desk")
disk = run.disk("vda", len(CONTENT))
disk.write(0, CONTENT)
disk.commit()
commit(run)
"""


@pytest.mark.parametrize("moment", range(examples(8)))
def test_a_copy_that_is_killed_leaves_a_vault_that_is_whole(tmp_path: Path, moment: int) -> None:
    store = FolderStore(tmp_path)
    vault = Vault.create(store)
    command = die_with_us(sys.executable, "-c", COPYING, tmp_path)
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment * 0.02)
        process.kill()

    for point in vault.points():
        assert vault.verify(point).is_good
        assert vault.open_disk(point, "vda").read(0, len(CONTENT)) == CONTENT

    run = vault.begin("here", "desk")  # the chunks that the dead one stored are shared
    disk = run.disk("vda", len(CONTENT))
    disk.write(0, CONTENT)
    disk.commit()
    point = commit(run)
    assert vault.verify(point).is_good

    for dead in vault.runs():
        vault.end_run(dead.id)
    for id in vault.point_ids():
        vault.delete_point(id)
    vault.collect("here")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["vault.json"]
