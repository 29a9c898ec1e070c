"""The instant hypervisor itself: hosts, storages, templates, machines and disks in one SQLite file.

Every process of the machine that opens the same folder sees the same world. What is done is atomic and stays done,
whatever becomes of the process that asked. Tests build worlds with `World.make`, look at them, and write into disks.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.doubles.instant.faults import Faults

SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE host (id TEXT PRIMARY KEY, name TEXT, vcpus INT, memory_mib INT, is_up INT);
CREATE TABLE storage (id TEXT PRIMARY KEY, name TEXT, capacity_mib INT, is_up INT);
CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT, is_isolated INT);
CREATE TABLE template (
    id TEXT PRIMARY KEY, name TEXT UNIQUE, storage TEXT, vcpus INT, memory_mib INT, disk_mib INT, content TEXT
);
CREATE TABLE machine (
    id TEXT PRIMARY KEY, name TEXT UNIQUE, power TEXT, vcpus INT, memory_mib INT, host TEXT,
    installation TEXT, key TEXT, stands_at REAL, answers_at REAL, seed TEXT
);
CREATE TABLE share (
    machine TEXT PRIMARY KEY, weight INT, cpu_reservation INT, cpu_limit INT, memory_reservation INT
);
CREATE TABLE password (disk TEXT, user TEXT, password TEXT, PRIMARY KEY (disk, user));
CREATE TABLE disk (id TEXT PRIMARY KEY, machine TEXT, storage TEXT, size_mib INT, content TEXT, of_order TEXT);
CREATE INDEX disk_of_machine ON disk (machine);
CREATE INDEX machine_of_order ON machine (key);
CREATE TABLE snapshot (id TEXT PRIMARY KEY, machine TEXT, name TEXT, content TEXT, UNIQUE (machine, name));
CREATE TABLE act (number INTEGER PRIMARY KEY, key TEXT, kind TEXT, attempt INT, what TEXT);
"""
"""`act` is what was really done, in order: tests read it to see that nothing was done twice."""


@dataclass(frozen=True, slots=True)
class MachineRow:
    id: str
    name: str
    power: str
    vcpus: int
    memory_mib: int
    host: str
    installation: str
    key: str
    stands_at: float
    answers_at: float
    seed: str

    @property
    def stands(self) -> bool:
        return self.stands_at <= time.time()


@dataclass(frozen=True, slots=True)
class TemplateRow:
    id: str
    name: str
    storage: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    content: str


class World:
    """One hypervisor's world in a folder. Raises FileNotFoundError if none was made there."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        file = self.folder / "world.sqlite3"
        if not file.exists():
            raise FileNotFoundError(file)
        self.faults = Faults(self.folder / "faults")
        self._db = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        # A killed process loses nothing that it committed; only a power cut would, and tests do not cut the power.
        self._db.execute("PRAGMA synchronous=OFF")

    @classmethod
    def make(
        cls,
        folder: Path | str,
        *,
        hosts: int = 1,
        memory_mib: int = 1 << 20,
        vcpus: int = 1 << 12,
        disk_mib: int = 1 << 24,
    ) -> World:
        """A world with so many equal hosts, one shared storage, one network and the template "golden"."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(place / "world.sqlite3") as db:
            db.executescript(SCHEMA)
            rows = [(f"host-{n}", f"{place.name}-{n}", vcpus, memory_mib, 1) for n in range(1, hosts + 1)]
            db.executemany("INSERT INTO host VALUES (?, ?, ?, ?, ?)", rows)
            db.execute("INSERT INTO storage VALUES ('storage-1', 'shared', ?, 1)", [disk_mib])
            db.execute("INSERT INTO network VALUES ('network-1', 'office', 0)")
        db.close()
        world = cls(place)
        world.add_template("golden")
        return world

    def add_template(self, name: str, *, content: str = "golden", disk_mib: int = 1000) -> str:
        self._db.execute(
            "INSERT INTO template VALUES (?, ?, 'storage-1', 1, 512, ?, ?)",
            [f"template-{name}", name, disk_mib, content],
        )
        return f"template-{name}"

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else in between."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # What there is.

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        return self._db.execute(query, values).fetchall()

    def machines(self) -> list[MachineRow]:
        return [MachineRow(*row) for row in self._db.execute("SELECT * FROM machine ORDER BY name")]

    def machine(self, machine_id: str) -> MachineRow | None:
        row = self._db.execute("SELECT * FROM machine WHERE id = ?", [machine_id]).fetchone()
        return MachineRow(*row) if row else None

    def machine_named(self, name: str) -> MachineRow | None:
        row = self._db.execute("SELECT * FROM machine WHERE name = ?", [name]).fetchone()
        return MachineRow(*row) if row else None

    def machines_of(self, installation: str, key: str) -> list[MachineRow]:
        found = self._db.execute("SELECT * FROM machine WHERE key = ? AND installation = ?", [key, installation])
        return [MachineRow(*row) for row in found]

    def template(self, template_id: str) -> TemplateRow | None:
        row = self._db.execute("SELECT * FROM template WHERE id = ?", [template_id]).fetchone()
        return TemplateRow(*row) if row else None

    def disks(self, machine_id: str) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT id FROM disk WHERE machine = ? ORDER BY id", [machine_id])]

    def orphaned_disks(self) -> list[str]:
        query = "SELECT id FROM disk WHERE machine NOT IN (SELECT id FROM machine)"
        return [row[0] for row in self._db.execute(query)]

    def memory_in_use_mib(self, host: str) -> int:
        query = "SELECT coalesce(sum(memory_mib), 0) FROM machine WHERE host = ? AND power = 'on'"
        return int(self._db.execute(query, [host]).fetchone()[0])

    def free_disk_mib(self, storage: str) -> int:
        query = """SELECT capacity_mib - (SELECT coalesce(sum(size_mib), 0) FROM disk WHERE storage = storage.id)
                   - (SELECT coalesce(sum(disk_mib), 0) FROM template WHERE storage = storage.id)
                   FROM storage WHERE id = ?"""
        return int(self._db.execute(query, [storage]).fetchone()[0])

    def share(self, machine_id: str) -> tuple[int, int, int, int]:
        """Weight, CPU reservation, CPU limit, memory reservation (the last three in per cent)."""
        found = self._db.execute("SELECT * FROM share WHERE machine = ?", [machine_id]).fetchone()
        return found[1:] if found else (100, 0, 100, 0)

    def acts(self, what: str = "%") -> list[tuple[str, str, int, str]]:
        """(key, kind of order, attempt, what was done), oldest first."""
        return self._db.execute(
            "SELECT key, kind, attempt, what FROM act WHERE what LIKE ? ORDER BY number", [what]
        ).fetchall()

    def passwords(self, machine_id: str) -> dict[str, str]:
        """Of the accounts that its guest knows by now."""
        query = "SELECT user, password FROM password JOIN disk ON disk.id = password.disk WHERE disk.machine = ?"
        return dict(self._db.execute(query, [machine_id]).fetchall())

    # What users and people at the hypervisor do.

    def write(self, machine_id: str, text: str) -> None:
        """A user writes into the machine's disk."""
        self._db.execute("UPDATE disk SET content = content || ? WHERE machine = ?", [text, machine_id])

    def read(self, machine_id: str) -> str:
        """All that can be read on the machine's disks."""
        query = "SELECT content FROM disk WHERE machine = ? ORDER BY id"
        return "".join(row[0] for row in self._db.execute(query, [machine_id]))

    def add_foreign_machine(self, name: str, *, installation: str = "", key: str = "", memory_mib: int = 512) -> str:
        """Somebody makes a machine past the broker."""
        machine_id = str(uuid4())
        values = [machine_id, name, "on", 1, memory_mib, "host-1", installation, key, 0, 0, ""]
        self._db.execute(f"INSERT INTO machine VALUES ({', '.join('?' * 11)})", values)
        return machine_id

    def remove_machine(self, machine_id: str) -> None:
        """Somebody deletes a machine past the broker."""
        with self.change() as db:
            db.execute("DELETE FROM machine WHERE id = ?", [machine_id])
            for table in ("disk", "snapshot", "share"):
                db.execute(f"DELETE FROM {table} WHERE machine = ?", [machine_id])

    def set_host_up(self, host: str, is_up: bool) -> None:
        self._db.execute("UPDATE host SET is_up = ? WHERE id = ?", [is_up, host])
