"""What a mover asks of Prism: unlike a pump it waits until a task has ended.

A mover may die at any moment. What it had made is found by its name; what a task of its was still making then is not
yet there to be found. So who started a task remembers it (`Trail`) and waits for it before he cleans up, and who knows
nothing of it looks twice, as far apart as Prism may list new things late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from connectors.base import Order
from connectors.errors import Busy, NotFound, PlatformFault
from connectors.nutanix import mapping
from connectors.nutanix.client import Json, Precondition, literal, segment
from connectors.nutanix.faults import Refusal
from connectors.nutanix.mapping import Task
from connectors.nutanix.tasks import TASKS
from connectors.nutanix.work import ETAG_TRIES, VMS, Work

Errand = Work[Order]
"""An order's key alone counts."""
Working = Callable[[float, str], Errand]
"""Begins another errand, by a deadline and with a connection of its own, for what is done while bytes flow."""

LONGEST_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of things that replication leaves for a while."""

    namespace: str
    path: str
    words: str
    rel: str
    """As tasks call it."""
    has_etag: bool = False
    """Whether deleting one wants `If-Match`."""


IMAGES = Kind("vmm", "content/images", "images", "vmm:content:image")
MACHINES = Kind("vmm", VMS, "stand-in machines", mapping.VM_REL, has_etag=True)
POINTS = Kind("dataprotection", "config/recovery-points", "recovery points", "dataprotection:config:recovery-point")


@dataclass(slots=True)
class Trail:
    """The tasks that were started, so that whoever cleans up can wait for them."""

    tasks: list[str] = field(default_factory=list)
    is_torn: bool = False
    """Something was asked for and not answered: there may be a task that nobody knows."""


def start(errand: Errand, trail: Trail, kind: Kind, body: Json, step: str, *, path: str = "") -> str:
    """Ask for something; the task's id. `step` makes the request id, with the key."""
    was_torn, trail.is_torn = trail.is_torn, True
    answer = errand.client.act(
        "POST", kind.namespace, path or kind.path, errand.deadline,
        request_id=mapping.request_id(errand.order.key, step), body=body, doing=errand.doing,
    )  # fmt: skip
    trail.is_torn = was_torn
    task = mapping.task_id(answer.data)
    trail.tasks.append(task)
    return task


def wait(errand: Errand, task: str) -> Task:
    """The task once it has succeeded. Raises what it failed of; `Busy` if it does not end in time."""
    found = _ended(errand, task)
    if not found.is_done:
        raise errand.client.told(Refusal(0, found.words), errand.doing)
    return found


def _ended(errand: Errand, task: str) -> Task:
    look_s = 0.1
    while True:
        found = look(errand, task)
        if found.is_over:
            return found
        if time.monotonic() + look_s > errand.deadline:
            raise Busy(f"Prism Central {errand.settings.endpoint} is not done in time with {errand.doing}.")
        time.sleep(look_s)
        look_s = min(LONGEST_LOOK_S, look_s * 1.4)


def look(errand: Errand, task: str) -> Task:
    """As it is now. (`Tasks`, which believe an older answer for a while, are for the many of a pump.)"""
    answer = errand.client.get("prism", f"{TASKS}/{segment(task)}", errand.deadline, doing=errand.doing)
    return mapping.read_task(answer.data if isinstance(answer.data, dict) else {})


def made(errand: Errand, kind: Kind, task: Task, name: str, *, detail: str = "") -> str:
    """The id of what a task made. Tasks of some releases do not tell it: then it is looked for by its name."""
    told = task.details.get(detail, "").strip() or task.made(kind.rel)
    if told:
        return told.split(",")[0]
    found = [str(item.get("extId")) for item in named(errand, kind, name) if item.get("name") == name]
    if not found:
        raise PlatformFault(
            f"Prism Central {errand.settings.endpoint} says that it made {name!r}, and it is not there: {errand.doing}."
        )
    return found[0]


def named(errand: Errand, kind: Kind, prefix: str) -> list[Json]:
    """All whose names begin like that."""
    query = {"$filter": f"startswith(name,{literal(prefix)})"}
    listing = errand.client.list(kind.namespace, kind.path, errand.deadline, query=query, doing=errand.doing)
    return [item for item in listing.items if str(item.get("name", "")).startswith(prefix) and item.get("extId")]


# --- cleaning up -----------------------------------------------------------------------------------------------------


def remove(errand: Errand, prefix: str, kinds: Sequence[Kind], trail: Trail | None) -> None:
    """Nothing of these names stays. `trail`: of whoever made them, if he is this very object.

    Raises `Busy` if that is not certain by the deadline.
    """
    if trail is not None:
        for task in trail.tasks:
            _let_end(errand, task)
    is_certain = trail is not None and not trail.is_torn
    while _remove_listed(errand, prefix, kinds) and not is_certain:
        lag_s = float(errand.settings.listing_lag_s)
        if time.monotonic() + lag_s > errand.deadline:
            raise Busy(
                f"Something of a mover that was lost lay on {errand.settings.endpoint} and is removed. It is looked "
                "once more for what may not have been listed yet.",
                retry_after_s=lag_s,
            )
        time.sleep(lag_s)


def _let_end(errand: Errand, task: str) -> None:
    """However it ends."""
    try:
        _ended(errand, task)
    except NotFound:
        return  # forgotten: long over


def _remove_listed(errand: Errand, prefix: str, kinds: Sequence[Kind]) -> int:
    """How many there were."""
    tasks = []
    for kind in kinds:
        errand.begin(f"Removing {kind.words}")
        tasks += [delete(errand, kind, str(item["extId"])) for item in named(errand, kind, prefix)]
    for task in tasks:
        if task:
            await_gone(errand, task)
    return len(tasks)


def await_gone(errand: Errand, task: str) -> None:
    """Gone already is fine."""
    try:
        wait(errand, task)
    except NotFound:
        return


def delete(errand: Errand, kind: Kind, id: str) -> str:
    """The task that deletes it; empty if it is gone already."""
    where = f"{kind.path}/{segment(id)}"
    for _ in range(ETAG_TRIES):
        try:
            etag = ""
            if kind.has_etag:
                etag = errand.client.get(kind.namespace, where, errand.deadline, doing=errand.doing).etag
            answer = errand.client.act(
                "DELETE", kind.namespace, where, errand.deadline, request_id=str(uuid4()), etag=etag,
                doing=errand.doing,
            )  # fmt: skip
        except NotFound:
            return ""
        except Precondition:
            continue
        return mapping.task_id(answer.data)
    raise Busy(f"One of the {kind.words} changes faster than it can be read: {errand.doing} was refused.")
