"""What each step of the protocol is for: the same order of events, with all steps and with one left out.

`tests/disks/vault/test_protocol.py` looks for orders of events that nobody thought of.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from disks.errors import Damaged, NotFound
from disks.vault.collecting import Collection
from disks.vault.objects import Mark
from disks.vault.points import DiskTree, RecoveryPoint
from disks.vault.vault import Vault
from disks.vault.writing import Run
from tests.disks.vault.judging import CHUNK, commit, missed, superfluous
from tests.disks.vault.stores import MemoryStore, StoreInTurns, Turns

LeaveOut = Callable[[pytest.MonkeyPatch], None]


class Scene:
    """A vault, and actors on it that go on step by step."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.vault = Vault.create(self.store, chunk_size=CHUNK)

    def actor(self, act: Callable[[Vault], object]) -> Turns:
        return Turns(lambda turns: act(Vault.open(StoreInTurns(self.store, turns))))

    def copy(self, letters: str = "c", base: RecoveryPoint | None = None) -> Turns:
        """Of a disk, a chunk a letter; with no letters all of it is inherited."""

        def act(vault: Vault) -> None:
            run = vault.begin("here", "desk", base, threads=0)
            disk = run.disk("vda", CHUNK * max(len(letters), 1))
            if letters:
                disk.write(0, b"".join(letter.encode() * CHUNK for letter in letters))
            disk.commit()
            commit(run)

        return self.actor(act)

    def collect(self) -> Turns:
        return self.actor(lambda vault: vault.collect("here"))

    def point(self) -> RecoveryPoint:
        """The only one."""
        (point,) = self.vault.points()
        return point

    def garbage(self) -> None:
        """The chunk "c" lies there, and no point refers to it."""
        self.copy().run()
        self.vault.delete_point(self.point().id)

    @property
    def is_whole(self) -> bool:
        return not missed(self.store)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def to_its_check(copy: Turns) -> None:
    """All is stored, and nothing of the commit's check done."""
    copy.run_to("list broken/")  # the first thing that a run does
    copy.step()
    copy.run_to("list broken/")


def outcome(story: Callable[[Scene], bool], patch: pytest.MonkeyPatch, leave_out: LeaveOut) -> tuple[bool, bool]:
    """How the story ends with all steps, and with one left out."""
    with_all = story(Scene())
    leave_out(patch)
    return with_all, story(Scene())


def test_a_copy_is_registered_before_it_looks_for_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        scene.garbage()
        copy = scene.copy()
        copy.run_to("list broken/")
        copy.run_to("exists chunks/")
        copy.step()
        scene.collect().run()
        copy.run()
        return copy.failure is None and scene.is_whole

    def registered_at_the_end(patch: pytest.MonkeyPatch) -> None:
        register, ended = Vault._register, Run.commit
        entries: dict[str, bytes] = {}

        def postponed(
            vault: Vault, installation: str, source: str, *, is_collection: bool, id: str | None = None
        ) -> str:
            id = register(vault, installation, source, is_collection=is_collection, id=id)
            if not is_collection:
                entries[id] = vault._store.get(f"runs/{id}")
                vault._store.delete(f"runs/{id}")
            return id

        def commit_registered(run: Run, **what: object) -> RecoveryPoint:
            run._objects.store.put(f"runs/{run.id}", entries[run.id])
            return ended(run, **what)  # type: ignore[arg-type]

        patch.setattr(Vault, "_register", postponed)
        patch.setattr(Run, "commit", commit_registered)

    assert outcome(story, monkeypatch, registered_at_the_end) == (True, False)


def test_a_chunk_in_the_trash_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        scene.garbage()
        earlier = scene.copy("e")
        earlier.run_to("put points/")
        scene.collect().run()  # waits for the earlier copy
        copy = scene.copy()
        to_its_check(copy)
        earlier.run()
        scene.collect().run()
        copy.run()
        return copy.failure is None and scene.is_whole

    def counts_as_there(patch: pytest.MonkeyPatch) -> None:
        keep = Run.keep

        def lenient(run: Run, kind: str, name: str, content: bytes) -> None:
            place = run._objects.place(kind, name)
            if not any(run._objects.store.exists(mark.trash(place)) for mark in run._objects.marks()):
                keep(run, kind, name, content)

        patch.setattr(Run, "keep", lenient)

    assert outcome(story, monkeypatch, counts_as_there) == (True, False)


def inherited_from_a_deleted_base(scene: Scene) -> Turns:
    """A copy inherits a chunk from a base that was committed while a collection was under way, and is deleted then."""
    first = scene.copy()
    first.run_to("put points/")
    collection = scene.collect()
    collection.run_to("move chunks/")
    first.run()
    collection.run_to("list trash/")  # it has noted that nobody is at work
    base = scene.point()
    copy = scene.copy("", base)
    copy.run_to("list broken/")
    scene.vault.delete_point(base.id)
    collection.run()
    return copy


def test_a_commit_checks_that_all_of_the_point_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        copy = inherited_from_a_deleted_base(scene)
        copy.run()
        assert copy.failure is None or isinstance(copy.failure, Damaged)
        return scene.is_whole

    def unchecked(patch: pytest.MonkeyPatch) -> None:
        def nothing(run: Run, tree: DiskTree, base: DiskTree | None) -> None: ...

        patch.setattr(Run, "_require_whole", nothing)

    assert outcome(story, monkeypatch, unchecked) == (True, False)


def test_a_commit_takes_back_what_was_moved_since(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    scene.garbage()
    copy = scene.copy()
    to_its_check(copy)
    scene.collect().run()
    assert any(name.startswith("trash/") for name in scene.store.objects)
    copy.run()
    assert copy.failure is None
    assert not any(name.startswith("trash/") for name in scene.store.objects)
    assert scene.vault.verify(scene.point()).is_good


def test_a_run_is_unregistered_only_after_its_point_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        copy = scene.copy()
        copy.run_to("put points/")
        scene.collect().run()
        copy.run()
        return scene.is_whole

    def ended_first(patch: pytest.MonkeyPatch) -> None:
        enter = Vault.enter

        def late(vault: Vault, point: RecoveryPoint) -> None:
            vault.end_run(point.id)
            enter(vault, point)

        patch.setattr(Vault, "enter", late)
        patch.setattr(Vault, "delete_point", lambda vault, id: None)
        patch.setattr(Run, "_require_open", lambda run: None)

    assert outcome(story, monkeypatch, ended_first) == (True, False)


def test_open_runs_are_noted_after_the_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        scene.garbage()
        collection = scene.collect()
        collection.run_to("move chunks/")
        copy = scene.copy()
        copy.run_to("put points/")  # it has found the chunk in its place
        collection.run()
        copy.run()
        return scene.is_whole

    def noted_before(patch: pytest.MonkeyPatch) -> None:
        move = Collection.move

        def noting(collection: Collection) -> None:
            runs = tuple(collection._open_copies())
            move(collection)
            patch.setattr(Collection, "note", lambda it: it._write(Mark(it.id, runs)))

        patch.setattr(Collection, "move", noting)

    assert outcome(story, monkeypatch, noted_before) == (True, False)


def test_what_was_committed_before_the_moves_is_moved_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        other = scene.copy("o")
        other.run_to("put points/")
        first = scene.copy()
        first.run_to("put points/")
        collection = scene.collect()
        collection.run_to("move chunks/")
        first.run()
        collection.run()  # its trash waits for the other copy
        base = scene.point()
        copy = scene.copy("", base)
        copy.run_to("list broken/")
        scene.vault.delete_point(base.id)
        other.run()
        scene.collect().run()
        copy.run()
        return copy.failure is None and scene.is_whole

    def not_moved_back(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Collection, "restore", lambda collection: None)

    assert outcome(story, monkeypatch, not_moved_back) == (True, False)


def committed_after_its_chunk_was_moved(scene: Scene) -> None:
    copy = scene.copy()
    copy.run_to("put points/")
    collection = scene.collect()
    collection.run_to("list marks/")  # only the sweep is to come
    copy.run()
    collection.run()
    scene.collect().run()


def test_trash_waits_for_every_run_that_may_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        copy = scene.copy()
        copy.run_to("put points/")
        scene.collect().run()
        copy.run()
        return scene.is_whole

    def impatient(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Collection, "note", lambda collection: collection._write(Mark(collection.id, ())))

    assert outcome(story, monkeypatch, impatient) == (True, False)


def test_points_are_listed_once_more_before_trash_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        committed_after_its_chunk_was_moved(scene)
        return scene.is_whole

    def unlisted(patch: pytest.MonkeyPatch) -> None:
        restore = Collection._restore
        patch.setattr(
            Collection, "_restore", lambda it, mark: restore(it, mark) if mark.id == it.id and mark.runs == () else None
        )
        empty = Collection._empty

        def blind(collection: Collection, mark: Mark) -> None:
            empty(collection, Mark(mark.id, ("nobody",)))

        patch.setattr(Collection, "_empty", blind)

    assert outcome(story, monkeypatch, unlisted) == (True, False)


def test_a_mark_is_written_before_anything_is_moved_to_its_trash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers look for a chunk in the trash of all marks."""

    def story(scene: Scene) -> bool:
        copy = scene.copy()
        copy.run_to("put points/")
        collection = scene.collect()
        collection.run_to("delete chunks/")
        collection.step()
        copy.run()
        return scene.is_whole

    def unmarked(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Collection, "_write", lambda collection, mark: None)

    assert outcome(story, monkeypatch, unmarked) == (True, False)


def test_the_trash_of_a_collection_that_lives_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(scene: Scene) -> bool:
        scene.garbage()
        slow = scene.collect()
        slow.run_to("move chunks/")
        copy = scene.copy()
        scene.collect().run()  # another collection passes by before the slow one has moved anything
        copy.run_to("put points/")
        slow.run_to("put marks/")
        scene.collect().run()
        copy.run()
        return scene.is_whole

    def counts_as_dead(patch: pytest.MonkeyPatch) -> None:
        def is_open_copy(vault: Vault, id: str) -> bool:
            return any(run.id == id and not run.is_collection for run in vault.runs())

        patch.setattr(Vault, "is_open", is_open_copy)

    assert outcome(story, monkeypatch, counts_as_dead) == (True, False)


def test_a_dead_collections_trash_is_taken_over_once_its_owner_says_so(scene: Scene) -> None:
    scene.garbage()
    collection = scene.collect()
    collection.run_to("put marks/")
    collection.step()
    collection.run_to("move leaves/")
    collection.kill()

    scene.collect().run()
    assert any(name.startswith("trash/") for name in scene.store.objects)

    (dead,) = scene.vault.runs()
    assert dead.is_collection
    scene.vault.end_run(dead.id)
    scene.collect().run()
    assert not superfluous(scene.store)


def test_a_dead_runs_chunks_stay_until_its_owner_says_that_it_has_ended(scene: Scene) -> None:
    copy = scene.copy()
    copy.run_to("put points/")
    copy.kill()
    assert scene.vault.collect("here").waits_for == {scene.vault.runs()[0].id}
    assert any(name.startswith("trash/") for name in scene.store.objects)

    scene.vault.end_run(scene.vault.runs()[0].id)
    scene.vault.collect("here")
    assert not superfluous(scene.store)


def test_a_run_that_was_ended_while_it_lives_makes_no_point(scene: Scene) -> None:
    for moment in ("exists chunks/", "put points/", "delete runs/"):
        copy = scene.copy()
        copy.run_to(moment)
        scene.vault.end_run(scene.vault.runs()[0].id)
        copy.run()
    assert len(scene.vault.point_ids()) == 1  # the last one was complete already


def test_a_copy_whose_base_is_gone_does_not_begin(scene: Scene) -> None:
    scene.copy().run()
    base = scene.point()
    scene.vault.delete_point(base.id)
    with pytest.raises(NotFound):
        scene.vault.begin("here", "desk", base)
    assert not scene.vault.runs()
