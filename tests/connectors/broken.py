"""A connector that breaks its promises, one at a time; each check of the contract must catch its faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

from connectors.base import (
    CloneMachine,
    Connector,
    Cursor,
    DeleteMachine,
    Inventory,
    MachineMade,
    MachineRef,
    OpenScreen,
    Order,
    Outcome,
    Platform,
    Power,
    PowerSet,
    Receipt,
    Reconfigure,
    RecycleMachine,
    ScreenOpened,
    SetGuestPassword,
    SetPower,
    Settings,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import NotFound, PlatformFault
from tests.connectors import contract
from tests.connectors.contract import OURS, World

FAULTS: Mapping[str, tuple[Callable[[World], None], ...]] = {
    "forgets_keys": (
        contract.check_the_same_key_twice_makes_one_machine,
        contract.check_a_lost_answer_is_found_by_a_fresh_connector,
        contract.check_two_connectors_at_once_make_one_machine,
    ),
    "forgets_receipts": (contract.check_another_connector_goes_on_with_a_receipt,),
    "stamps_wrongly": (contract.check_a_clone_stands_bears_our_stamp_and_is_listed,),
    "cannot_copy": (contract.check_a_full_clone_stands_as_well,),
    "hides_templates": (contract.check_the_template_is_listed_and_untouched,),
    "makes_up_templates": (contract.check_an_unknown_template_fails_and_leaves_nothing,),
    "changes_names": (contract.check_awkward_names_are_taken_as_they_are_or_refused,),
    "overwrites_names": (contract.check_a_name_that_is_taken_harms_nobody,),
    "believes_any_stamp": (
        contract.check_a_foreign_stamp_is_a_conflict_and_nothing_happens,
        contract.check_an_unstamped_reference_does_not_fit_a_stamped_machine,
    ),
    "misses_the_missing": (contract.check_a_deleted_machine_leaves_nothing_and_twice_is_success,),
    "forgets_what_it_began": (contract.check_what_a_clone_of_unknown_outcome_made_is_deleted_by_its_key,),
    "pretends_to_recycle": (contract.check_recycling_gives_disks_that_did_not_exist,),
    "pretends_power": (
        contract.check_a_power_state_already_there_is_success,
        contract.check_a_missing_machine_is_not_found,
    ),
    "makes_up_snapshots": (contract.check_a_snapshot_is_taken_gone_back_to_and_deleted,),
    "pretends_to_reconfigure": (contract.check_what_is_reconfigured_is_listed,),
    "repeats_passwords": (contract.check_a_screen_has_a_password_that_is_never_shown,),
    "pretends_to_share": (
        contract.check_a_share_of_the_host_is_set_as_asked_and_setting_it_twice_is_success,
        contract.check_a_share_for_a_missing_machine_is_not_found,
    ),
    "gives_up_the_batch": (contract.check_one_failing_order_spoils_no_other,),
    "sees_no_changes": (contract.check_an_incremental_reading_tells_what_changed,),
    "takes_any_cursor": (contract.check_a_cursor_of_another_object_gives_a_complete_listing,),
    "dates_listings_late": (contract.check_a_listing_says_when_it_began,),
    "is_patient": (contract.check_no_call_outlasts_its_deadline,),
    "works_overtime": (contract.check_nothing_is_begun_after_the_deadline,),
    "talks": (contract.check_secrets_stand_in_no_text,),
    "closes_once": (contract.check_closing_twice_is_harmless,),
    "takes_too_much": (contract.check_what_it_takes_is_declared,),
    "answers_without_receipt": (contract.check_another_connector_goes_on_with_a_receipt,),
    "waits_for_the_platform": (contract.check_the_same_key_twice_makes_one_machine,),
}
"""Fault -> the checks that must catch it."""


class BrokenWorld:
    """A world whose connectors all have one fault."""

    def __init__(self, world: World, fault: str) -> None:
        self._world = world
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def connector(self, installation: str = OURS) -> Connector:
        told = contract.THEIRS if self._fault == "stamps_wrongly" else installation
        return self._broken(self._world.connector(told))

    def unreachable(self) -> Connector:
        return self._broken(self._world.unreachable())

    def _broken(self, inner: Connector) -> Connector:
        broken: Any = type(
            "BrokenConnector", (BrokenConnector,), {"takes": type(inner).takes, "settings": type(inner).settings}
        )
        made: Connector = broken(inner, self._fault, self._world)
        return made


class BrokenConnector:
    """Hands everything on to a good connector, but for its fault."""

    kind: ClassVar[str] = "broken"
    version: ClassVar[str] = "0"
    label: ClassVar[str] = "Broken"
    takes: ClassVar[frozenset[type[Order]]] = frozenset()
    settings: ClassVar[type[Settings]] = Settings

    def __init__(self, inner: Connector, fault: str, world: World) -> None:
        self._inner = inner
        self._fault = fault
        self._world = world
        self._is_closed = False
        self._seen: set[str] = set()
        self._disks: dict[str, MachineMade] = {}

    def __repr__(self) -> str:
        told = self._world.secrets if self._fault == "talks" else ()
        return f"<Broken {self._fault} {told}>"

    def check(self, deadline: float) -> Platform:
        self._wait_too_long()
        platform = self._inner.check(deadline)
        if self._fault == "pretends_to_share":
            return replace(platform, takes=platform.takes | {ShareResources})
        return replace(platform, takes=platform.takes | {Order}) if self._fault == "takes_too_much" else platform

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        self._wait_too_long()
        inventory = self._inner.inventory(since, deadline)
        if self._fault == "sees_no_changes" and since is not None:
            return Inventory(began_at=inventory.began_at, complete=False, cursor=since)
        if self._fault == "takes_any_cursor" and since is not None:
            return replace(inventory, complete=False, machines=())
        if self._fault == "hides_templates":
            return replace(inventory, templates=())
        if self._fault == "dates_listings_late":
            return replace(inventory, began_at=inventory.began_at + timedelta(seconds=60))
        return inventory

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        self._wait_too_long()
        if self._fault == "gives_up_the_batch" and len(orders) > 1:
            raise PlatformFault("One of them is bad.")
        if self._fault == "works_overtime":
            deadline = contract.soon()
        if self._fault == "waits_for_the_platform":
            time.sleep(contract.HASTE_S)
        for order in orders:
            self._seen.add(order.key)
            yield from self._answer(order, lambda other: self._inner.submit([other], deadline))

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        self._wait_too_long()
        for receipt in receipts:
            if self._fault == "forgets_receipts" and receipt.order.key not in self._seen:
                error = PlatformFault("This receipt is unknown.")
                yield Outcome(key=receipt.order.key, stage=Stage.FAILED, error=error)
                continue
            data = receipt.data

            def ask(other: Order, data: Mapping[str, object] = data) -> Iterator[Outcome]:
                return self._inner.poll([Receipt(other, data)], deadline)

            yield from self._answer(receipt.order, ask)

    def close(self) -> None:
        if self._fault == "closes_once" and self._is_closed:
            raise PlatformFault("It is closed already.")
        self._is_closed = True
        self._inner.close()

    # --- the faults of orders ---

    def _wait_too_long(self) -> None:
        if self._fault == "is_patient":
            time.sleep(5)

    def _answer(self, order: Order, ask: Callable[[Order], Iterator[Outcome]]) -> Iterator[Outcome]:
        if (lie := self._lie(order)) is not None:
            yield lie
            return
        for outcome in ask(self._changed(order)):
            told = replace(outcome, key=order.key)
            if isinstance(told.result, MachineMade):
                self._disks[told.result.machine_id] = told.result
            if self._fault == "answers_without_receipt":
                told = replace(told, stage=Stage.RUNNING, result=None, receipt=None)
            if self._fault == "repeats_passwords" and isinstance(told.result, ScreenOpened):
                told = replace(told, result=replace(told.result, password="hunter2"))
            yield told

    def _lie(self, order: Order) -> Outcome | None:
        """An answer without doing anything."""
        if self._fault == "misses_the_missing" and isinstance(order, DeleteMachine) and self._is_gone(order.machine):
            return Outcome(key=order.key, stage=Stage.FAILED, error=NotFound("It is gone."))
        if self._fault == "forgets_what_it_began" and isinstance(order, DeleteMachine) and not order.machine.id:
            return Outcome(key=order.key, stage=Stage.DONE)
        if self._fault == "pretends_to_recycle" and isinstance(order, RecycleMachine):
            return Outcome(key=order.key, stage=Stage.DONE, result=self._disks[order.machine.id])
        if self._fault == "pretends_power" and isinstance(order, SetPower):
            return Outcome(key=order.key, stage=Stage.DONE, result=PowerSet(Power.ON))
        if self._fault == "makes_up_snapshots" and isinstance(order, TakeSnapshot):
            return Outcome(key=order.key, stage=Stage.DONE, result=SnapshotTaken("made up"))
        if self._fault == "pretends_to_reconfigure" and isinstance(order, Reconfigure):
            return Outcome(key=order.key, stage=Stage.DONE)
        if self._fault == "pretends_to_share" and isinstance(order, ShareResources):
            return Outcome(key=order.key, stage=Stage.DONE)
        if self._fault == "cannot_copy" and isinstance(order, CloneMachine) and not order.linked:
            return Outcome(key=order.key, stage=Stage.FAILED, error=PlatformFault("It does not work."))
        return None

    def _is_gone(self, machine: MachineRef) -> bool:
        return machine.id not in self._world.machines()

    def _changed(self, order: Order) -> Order:
        """Another order than the one that was given."""
        if isinstance(order, CloneMachine):
            if self._fault == "forgets_keys":
                return replace(order, key=str(uuid4()), name=uuid4().hex)
            if self._fault == "changes_names":
                return replace(order, name=f"desk-{order.key}")
            if self._fault == "makes_up_templates":
                return replace(order, template=self._world.template)
            if self._fault == "overwrites_names":
                self._remove_namesakes(order)
        if self._fault == "believes_any_stamp" and isinstance(
            order, (DeleteMachine, RecycleMachine, SetPower, OpenScreen, ShareResources, SetGuestPassword)
        ):
            found: Stamp | None = self._world.machines().get(order.machine.id)
            return replace(order, machine=MachineRef(order.machine.id, found))
        return order

    def _remove_namesakes(self, order: CloneMachine) -> None:
        for machine, name in dict(self._world.names()).items():
            if name == order.name:
                self._world.remove(machine)
