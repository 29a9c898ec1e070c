"""A vault as its users see it: points, runs, restoring, verification, collection."""

from __future__ import annotations

import hmac
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from disks.errors import Damaged, NewerFormat, NotAVault, NotFound, VaultRefused, WrongKey
from disks.vault import points as papers
from disks.vault import verifying
from disks.vault.collecting import Collected, Collection
from disks.vault.objects import Objects
from disks.vault.points import RecoveryPoint
from disks.vault.reading import ChangedSource, VaultSource
from disks.vault.sealing import Seal
from disks.vault.store import Store
from disks.vault.verifying import Verdict
from disks.vault.writing import Run

FORMAT = 1
CHUNK_SIZE = 1 << 20
LARGEST_POINT = 64 << 20
"""A point's file: 64 bytes for each GiB of its disks, and some."""
DESCRIPTION = "vault.json"


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A copy or collection that has begun and not ended, perhaps of a process that is dead."""

    id: str
    installation: str
    source: str
    """Empty for a collection."""
    began_at: datetime | None
    """By the clock of who began it, for people. None if its entry is not readable."""
    is_collection: bool


class Vault:
    """An opened vault. Safe among threads; any number of processes and installations may have it open."""

    def __init__(self, store: Store, id: str, chunk_size: int, seal: Seal) -> None:
        """Use `create` or `open`."""
        self.id, self.is_encrypted = id, seal.is_encrypted
        self._store, self._seal = store, seal
        self._objects = Objects(store, seal, chunk_size)

    @classmethod
    def create(cls, store: Store, key: bytes | None = None, *, chunk_size: int = CHUNK_SIZE) -> Vault:
        """A new vault, encrypted if there is a key of 32 bytes. Raises `VaultRefused` if there is one already."""
        if store.exists(DESCRIPTION):
            raise VaultRefused("There is a vault already. Open it, or choose an empty place.")
        seal, id = Seal(key), str(uuid.uuid4())
        told = {
            "format": FORMAT,
            "id": id,
            "chunk_size": chunk_size,
            "is_encrypted": seal.is_encrypted,
            "check": seal.check(id),
        }
        store.put(DESCRIPTION, json.dumps(told, indent=1).encode())
        # Of two that create one at the same moment the later one's description stands: the other one sees that here.
        vault = cls.open(store, key)
        if vault.id != id:
            raise VaultRefused("Somebody else made a vault here at the same moment. Open that one.")
        return vault

    @classmethod
    def open(cls, store: Store, key: bytes | None = None) -> Vault:
        """Raises `NotAVault`, `NewerFormat`, `WrongKey`, and what the store raises."""
        try:
            told: dict[str, Any] = json.loads(store.get(DESCRIPTION))
            version = int(told["format"])
            if version > FORMAT:
                raise NewerFormat(f"This vault has format {version}, we know {FORMAT}. Use a newer release.")
            id, chunk_size, is_encrypted, check = told["id"], told["chunk_size"], told["is_encrypted"], told["check"]
        except NotFound as error:
            raise NotAVault("There is no vault. Check the path, that the share is mounted, or create one.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NotAVault(f"{DESCRIPTION} is not readable. Put it back from a backup of the vault.") from error
        if is_encrypted and key is None:
            raise WrongKey("This vault is encrypted. Give its key.")
        if not is_encrypted and key is not None:
            raise WrongKey(
                "This vault is not encrypted, but a key was given. Open it without, or choose another vault."
            )
        seal = Seal(key)
        if not hmac.compare_digest(seal.check(id), check):
            raise WrongKey("This is not the key that the vault was made with. Give that one.")
        return cls(store, id, chunk_size, seal)

    def close(self) -> None:
        self._store.close()

    # --- points -------------------------------------------------------------------------------------------------------

    def points(self) -> Iterator[RecoveryPoint]:
        """All of them, of all installations, in any order. Raises `Damaged` at one that cannot be read."""
        for id in self.point_ids():
            try:
                yield self.point(id)
            except NotFound:
                continue  # deleted meanwhile

    def point_ids(self) -> list[str]:
        """Also of points that cannot be read."""
        return [name.removeprefix("points/") for name in self._store.list("points/")]

    def point(self, id: str) -> RecoveryPoint:
        """Raises `NotFound`, `Damaged`."""
        name = f"points/{_require_id(id)}"
        stored = self._store.get(name)
        try:
            content = self._seal.open_up(name, stored, LARGEST_POINT)
        except Damaged as error:
            raise Damaged(f"Recovery point {id} is damaged and cannot be restored. Delete it.") from error
        return papers.from_json(id, content, self._seal.name)

    def enter(self, point: RecoveryPoint) -> None:
        """For `Run.commit`, which has checked that all of it is there."""
        name = f"points/{_require_id(point.id)}"
        self._store.put(name, self._seal.close_up(name, papers.to_json(point, self._seal.name)))

    def has_point(self, id: str) -> bool:
        return self._store.exists(f"points/{_require_id(id)}")

    def delete_point(self, id: str) -> None:
        """Its room is free after a collection. One that is gone is deleted already; one that is damaged can be."""
        self._store.delete(f"points/{_require_id(id)}")

    def open_disk(self, point: RecoveryPoint, disk: str) -> VaultSource:
        """For restoring. A point that is being restored must not be deleted meanwhile. Raises `NotFound`."""
        return VaultSource(self._objects, point.disk(disk))

    def open_changes(self, point: RecoveryPoint, disk: str, since: RecoveryPoint) -> ChangedSource:
        """For what holds the disk as it was at `since`. As `open_disk`."""
        return ChangedSource(self._objects, point.disk(disk), since.disk(disk))

    def verify(
        self,
        point: RecoveryPoint,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Verdict:
        """Read all of it back. `progress` hears bytes of disks done, and of how many. Raises `Cancelled`."""
        return verifying.verify(self._objects, point, progress, is_cancelled)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def begin(
        self,
        installation: str,
        source: str,
        base: RecoveryPoint | None = None,
        *,
        id: str | None = None,
        threads: int = 2,
    ) -> Run:
        """Begin a copy. What it does not write is as in `base`, whoever's point that is.

        `id` is a UUID of the caller's that was never given before, so that others can look for what became of it.
        Raises `NotFound` if the base was deleted. `threads` hash and compress; with 0 the caller's does all.
        """
        id = self._register(installation, source, is_collection=False, id=id)
        try:
            if base is not None:
                # Read again now that the run is registered: until here a collection may have emptied its trash.
                base = self.point(base.id)
            return Run(self._objects, self, id=id, installation=installation, source=source, base=base, threads=threads)
        except Exception:
            self.end_run(id)
            raise

    def runs(self) -> list[OpenRun]:
        """What has begun and not ended."""
        found = []
        for name in self._store.list("runs/"):
            try:
                found.append(_open_run(name.removeprefix("runs/"), self._store.get(name)))
            except NotFound:
                continue
        return found

    def is_open(self, run_id: str) -> bool:
        return self._store.exists(f"runs/{_require_id(run_id)}")

    def end_run(self, run_id: str) -> None:
        """Its owner says that the process which ran it is dead; never of a live one. Idempotent.

        A live one would find out when it commits, and fail; a live collection would not, and chunks could be lost.
        """
        self._store.delete(f"runs/{_require_id(run_id)}")

    def _register(self, installation: str, source: str, *, is_collection: bool, id: str | None = None) -> str:
        id = _require_id(id) if id else str(uuid.uuid4())
        told = {
            "installation": installation,
            "source": source,
            "began_at": datetime.now(UTC).isoformat(),
            "is_collection": is_collection,
        }
        self._store.put(f"runs/{id}", json.dumps(told).encode())
        return id

    # --- collection ---------------------------------------------------------------------------------------------------

    def collect(self, installation: str, *, id: str | None = None) -> Collected:
        """Free the room of what no point refers to. Safe beside everything, also beside another collection.

        What may still be needed by a run that is open waits for a later collection. Raises `Damaged`, with nothing
        moved, if it cannot be known what a point refers to. If this process dies, its owner calls `end_run`.
        """
        collection = self.collection(installation, id=id)
        try:
            collection.find()
            collection.move()
            collection.note()
            collection.restore()
            return collection.sweep()
        finally:
            # Also after a failure: nothing is moved any more, so the next collection may take over the mark.
            self.end_run(collection.id)

    def collection(self, installation: str, *, id: str | None = None) -> Collection:
        """A registered collection that has not yet done anything. `id` as in `begin`."""
        return Collection(
            self._register(installation, "", is_collection=True, id=id),
            self._objects,
            points=self.points,
            open_copies=self._open_copies,
            is_open=self.is_open,
        )

    def _open_copies(self) -> list[str]:
        # An entry that is not readable counts as a copy's: better to wait for too many.
        return [run.id for run in self.runs() if not run.is_collection]


def _open_run(id: str, stored: bytes) -> OpenRun:
    try:
        told = json.loads(stored)
        began_at = datetime.fromisoformat(told["began_at"])
        return OpenRun(id, str(told["installation"]), str(told["source"]), began_at, told["is_collection"] is True)
    except (ValueError, KeyError, TypeError):
        return OpenRun(id, "", "", None, is_collection=False)


def _require_id(id: str) -> str:
    """Raises NotFound for what is no id of ours: it never becomes a name in the store."""
    try:
        return str(uuid.UUID(id))
    except ValueError as error:
        raise NotFound(f"There is nothing with the id {id!r}.") from error
