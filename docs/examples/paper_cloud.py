"""Paper Cloud, the imaginary platform of the worked example, as its maker's SDK would show it. Lives in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

DRY_S = 0.2
"""How long a fresh sheet takes."""


class PaperError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Sheet:
    id: str
    name: str
    paper: str
    note: str = ""
    state: str = "stopped"
    is_template: bool = False
    dry_at: float = 0.0

    def is_dry(self) -> bool:
        return time.monotonic() >= self.dry_at


class PaperCloud:
    version = "3.1"
    clouds: dict[str, PaperCloud] = {}
    """Address -> cloud."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.drawer: dict[str, Sheet] = {"golden": Sheet("golden", "Golden", "paper-0", is_template=True)}

    @classmethod
    def sign_in(cls, address: str, token: str, deadline: float) -> PaperCloud:
        cloud = cls.clouds.get(address)
        if cloud is None or time.monotonic() >= deadline:
            raise PaperError("no answer")
        if token != cloud.token:
            raise PaperError("bad token")
        return cloud

    def sheets(self) -> list[Sheet]:
        return list(self.drawer.values())

    def find(self, id: str) -> Sheet | None:
        return self.drawer.get(id)

    def get(self, id: str) -> Sheet:
        if id not in self.drawer:
            raise PaperError("no such sheet")
        return self.drawer[id]

    def copy(self, template: str, *, id: str, name: str, note: str) -> Sheet:
        self.get(template)
        return self.drawer.setdefault(id, Sheet(id, name, f"paper-{id}", note, dry_at=time.monotonic() + DRY_S))

    def renew(self, id: str, template: str, *, paper: str) -> Sheet:
        self.get(template)
        return self._change(id, paper=paper, dry_at=time.monotonic() + DRY_S)

    def set_state(self, id: str, state: str) -> Sheet:
        return self._change(id, state=state)

    def delete(self, id: str) -> None:
        self.drawer.pop(id, None)

    def _change(self, id: str, **fields: object) -> Sheet:
        self.drawer[id] = replace(self.get(id), **fields)  # type: ignore[arg-type]
        return self.drawer[id]
