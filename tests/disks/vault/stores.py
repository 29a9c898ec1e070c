"""A store in memory, and one whose every call waits for its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator

from disks.errors import NotFound
from disks.vault.store import require_name


class MemoryStore:
    """Beside a folder and a bucket the third judge of what a store promises; the fastest one for the others' tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> None:
        self.objects[require_name(name)] = content

    def get(self, name: str) -> bytes:
        if name not in self.objects:
            raise NotFound(f"{name} is not there.")
        return self.objects[name]

    def exists(self, name: str) -> bool:
        return require_name(name) in self.objects

    def present(self, names: Collection[str]) -> set[str]:
        return {name for name in names if self.exists(name)}

    def list(self, prefix: str) -> Iterator[str]:
        return iter([name for name in self.objects if name.startswith(prefix)])

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def move(self, name: str, new_name: str) -> None:
        self.objects[require_name(new_name)] = self.get(name)
        self.objects.pop(name, None)

    def tidy(self) -> None: ...

    def close(self) -> None: ...


class Death(BaseException):
    """The process is no more: nothing of its code may answer."""


class Turns:
    """One actor, a thread of its own, that does one step and waits until it is told to do the next.

    After `kill` it never touches the store again, whatever its `finally` clauses want.
    """

    def __init__(self, act: Callable[[Turns], object]) -> None:
        self.is_over = self.is_dead = False
        self.failure: BaseException | None = None
        self.next = ""
        """What its next step is, such as `put points/…`."""
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, args=(act,), daemon=True)
        self._thread.start()
        self._waits.acquire()

    def _live(self, act: Callable[[Turns], object]) -> None:
        try:
            self.wait("begin")
            act(self)
        except Death:
            pass
        except Exception as error:  # noqa: BLE001 - whoever steps it looks at it
            self.failure = error
        self.is_over = True
        self._waits.release()

    def wait(self, step: str) -> None:
        """Called by the actor before each step."""
        self.next = step
        if not self.is_dead:
            self._waits.release()
            self._go.acquire()
        if self.is_dead:
            raise Death

    def step(self) -> None:
        """Lets it do one step."""
        if not self.is_over:
            self._go.release()
            self._waits.acquire()

    def run_to(self, step: str) -> bool:
        """Lets it go on until its next step is one that begins so; whether there is one."""
        while not self.is_over and not self.next.startswith(step):
            self.step()
        return not self.is_over

    def run(self) -> None:
        """Lets it go on to its end."""
        while not self.is_over:
            self.step()

    def kill(self) -> None:
        self.is_dead = True
        self.run()


class StoreInTurns:
    """Another store, of which each call is a step of the actor; a move is two, as in a bucket."""

    def __init__(self, store: MemoryStore, turns: Turns) -> None:
        self._store, self._turns = store, turns

    def put(self, name: str, content: bytes) -> None:
        self._turns.wait(f"put {name}")
        self._store.put(name, content)

    def get(self, name: str) -> bytes:
        self._turns.wait(f"get {name}")
        return self._store.get(name)

    def exists(self, name: str) -> bool:
        self._turns.wait(f"exists {name}")
        return self._store.exists(name)

    def present(self, names: Collection[str]) -> set[str]:
        return {name for name in names if self.exists(name)}

    def list(self, prefix: str) -> Iterator[str]:
        self._turns.wait(f"list {prefix}")
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._turns.wait(f"delete {name}")
        self._store.delete(name)

    def move(self, name: str, new_name: str) -> None:
        self._turns.wait(f"move {name}")
        self._store.put(new_name, self._store.get(name))
        self.delete(name)

    def tidy(self) -> None: ...

    def close(self) -> None: ...
