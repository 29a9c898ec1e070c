"""What every connector must do, as checks that any of them can be put to.

A connector is tested together with a *world*: the platform behind it, as seen and touched behind the connector's back.
Each check is a function of a world and raises AssertionError. `CHECKS` holds all of them; a test module runs them by

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_it_keeps_the_contract(check, world): check(world)

and `broken.py` has a connector that fails each of them: a check counts once it has been seen to fail.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, cast
from uuid import uuid4

from connectors.base import (
    CloneMachine,
    Connector,
    Cursor,
    DeleteMachine,
    DeleteSnapshot,
    Inventory,
    MachineMade,
    MachineRef,
    OpenScreen,
    Order,
    Outcome,
    Power,
    PowerAction,
    PowerSet,
    Receipt,
    Reconfigure,
    RecycleMachine,
    ResourceShare,
    RevertSnapshot,
    ScreenOpened,
    SetGuestPassword,
    SetPower,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import Conflict, ConnectorError, NotFound, Unreachable, Unsupported

OURS = "installation-ours"
THEIRS = "installation-theirs"

AWKWARD_NAMES = (
    "two words",
    'it\'s "quoted" & <bracketed>',
    "Grüße-日本",
    "line\nbreak",
    "../escape",
    "x" * 300,
    "",
    "tab\tand\x00nul",
)

HASTE_S = 5.0
"""Submitting answers within this, however long the work takes: nothing waits for the platform."""

CHANGE_S = 4.0
"""Within this a change behind the connector's back is told by an incremental reading."""


class World(Protocol):
    """The platform behind a connector. One that has no word for a power action names it in `lacks`, a frozenset: it has
    to be refused as `Unsupported`, and the machine stays as it is."""

    template: str
    """Id of a template that can be cloned, also with `linked=False`."""
    secrets: tuple[str, ...]
    """Secret values in the settings of its connectors."""
    limit_s: float
    """How long an order may take here."""

    def connector(self, installation: str = OURS) -> Connector:
        """A fresh connector object; the world closes it in the end."""
        ...

    def unreachable(self) -> Connector:
        """A fresh connector whose endpoint takes connections and never answers."""
        ...

    def machines(self) -> Mapping[str, Stamp | None]:
        """Ids and stamps of all machines but templates."""
        ...

    def names(self) -> Mapping[str, str]:
        """Ids and names of all machines but templates."""
        ...

    def litter(self) -> set[str]:
        """Whatever else exists that orders make: disks, probes, uploads."""
        ...

    def restamp(self, machine: str, stamp: Stamp) -> None:
        """Make the machine somebody else's."""
        ...

    def remove(self, machine: str) -> None:
        """Make the machine vanish with its disks."""
        ...


class SharingWorld(World, Protocol):
    """The platform behind a connector that takes `ShareResources`."""

    def share(self, machine: str) -> ResourceShare:
        """What the platform shows of the machine's share; what it has no word for as it is by default."""
        ...


# --- how the broker uses a connector ---------------------------------------------------------------------------------


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def new_key() -> str:
    return str(uuid4())


def require_well_formed(outcome: Outcome, order: Order) -> None:
    """Raises AssertionError for an outcome that the broker could not use."""
    assert outcome.key == order.key, "an outcome bears its order's key"
    assert outcome.percent is None or 0 <= outcome.percent <= 100
    assert outcome.poll_after_s >= 0
    if outcome.stage is Stage.RUNNING:
        assert outcome.receipt is not None, "what is running has a receipt"
        assert json.loads(json.dumps(dict(outcome.receipt))) == dict(outcome.receipt), "a receipt is JSON"
        assert len(json.dumps(dict(outcome.receipt))) < 4000, "a receipt is small"
    if outcome.stage is Stage.FAILED:
        assert isinstance(outcome.error, ConnectorError), "a failure has one of our errors"
        assert outcome.error.message, "and says what failed"
    if outcome.stage is Stage.DONE:
        assert outcome.error is None
        wanted = _RESULTS.get(type(order))
        assert wanted is None or isinstance(outcome.result, wanted), f"{type(order).__name__} has a result"


_RESULTS: Mapping[type[Order], type] = {
    CloneMachine: MachineMade,
    RecycleMachine: MachineMade,
    SetPower: PowerSet,
    TakeSnapshot: SnapshotTaken,
    OpenScreen: ScreenOpened,
}


def submit(connector: Connector, orders: Sequence[Order]) -> dict[str, Outcome]:
    """One outcome an order, soon."""
    began = time.monotonic()
    try:
        outcomes = list(connector.submit(orders, soon()))
    except ConnectorError as error:
        if error.loses_endpoint:
            raise
        raise AssertionError("a batch raises only when the endpoint is lost") from error
    assert time.monotonic() - began < HASTE_S, "submitting waits for nothing"
    return _by_key(outcomes, orders)


def submit_within(connector: Connector, orders: Sequence[Order], seconds: float) -> list[Outcome]:
    """The outcomes that came before the deadline; raises what the connector raises."""
    outcomes = list(connector.submit(orders, soon(seconds)))
    for outcome in outcomes:
        require_well_formed(outcome, {order.key: order for order in orders}[outcome.key])
    return outcomes


def poll(connector: Connector, receipts: Sequence[Receipt]) -> dict[str, Outcome]:
    return _by_key(list(connector.poll(receipts, soon())), [receipt.order for receipt in receipts])


def _by_key(outcomes: Iterable[Outcome], orders: Sequence[Order]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    wanted = {order.key: order for order in orders}
    for outcome in outcomes:
        assert outcome.key in wanted, "no outcome without its order"
        assert outcome.key not in found, "one outcome an order"
        require_well_formed(outcome, wanted[outcome.key])
        found[outcome.key] = outcome
    assert found.keys() == wanted.keys(), "every order has its outcome"
    return found


def finish(world: World, connector: Connector, order: Order, first: Outcome | None = None) -> Outcome:
    """Submit and poll until it is done or failed, as the pump does: receipts go through JSON."""
    outcome = first or submit(connector, [order])[order.key]
    until = time.monotonic() + world.limit_s
    while outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until, f"{type(order).__name__} is not done after {world.limit_s} s: {outcome.step}"
        time.sleep(min(outcome.poll_after_s, 1.0))
        data = json.loads(json.dumps(dict(outcome.receipt or {})))
        outcome = poll(connector, [Receipt(order, data)])[order.key]
    return outcome


def do(world: World, connector: Connector, order: Order) -> Outcome:
    """`finish`, and it was successful."""
    outcome = finish(world, connector, order)
    words = f"{outcome.error} ({outcome.error.platform_words})" if outcome.error else ""
    assert outcome.stage is Stage.DONE, f"{type(order).__name__} failed: {words}"
    return outcome


def refuse(world: World, connector: Connector, order: Order) -> ConnectorError:
    """`finish`, and it failed."""
    outcome = finish(world, connector, order)
    assert outcome.stage is Stage.FAILED, f"{type(order).__name__} should have failed"
    assert outcome.error is not None
    return outcome.error


def clone(world: World, *, power_on: bool = False, name: str = "", linked: bool = True, key: str = "") -> CloneMachine:
    return CloneMachine(
        key=key or new_key(),
        name=name or f"desk-{uuid4().hex[:8]}",
        template=world.template,
        power_on=power_on,
        linked=linked,
    )


def made(world: World, connector: Connector, order: CloneMachine | RecycleMachine) -> MachineMade:
    result = do(world, connector, order).result
    assert isinstance(result, MachineMade)
    return result


def ref(world: World, machine: MachineMade) -> MachineRef:
    return MachineRef(machine.machine_id, world.machines()[machine.machine_id])


def again(order: CloneMachine) -> CloneMachine:
    """The same order once more, as the broker sends it when it does not know what became of it."""
    return replace(order, attempt=order.attempt + 1)


def listing(connector: Connector) -> Inventory:
    """A complete listing."""
    inventory = connector.inventory(None, soon(30))
    assert inventory.complete, f"a first listing is complete: {inventory.partial}"
    assert not inventory.partial, "a partial listing is never complete"
    return inventory


not_taken: set[str] = set()
"""Names of the orders that a check asked for and the platform does not take: nothing was judged of them."""


def takes(connector: Connector, *orders: type[Order]) -> bool:
    """Whether all of them work at this platform."""
    missing = {order.__name__ for order in orders} - {order.__name__ for order in connector.check(soon()).takes}
    not_taken.update(missing)
    return not missing


# --- making machines -------------------------------------------------------------------------------------------------


def check_a_clone_stands_bears_our_stamp_and_is_listed(world: World) -> None:
    connector = world.connector()
    order = clone(world)
    machine = made(world, connector, order)
    assert world.machines()[machine.machine_id] == Stamp(OURS, order.key)
    assert machine.name == order.name
    assert machine.disks, "a machine names the disks made for it"
    assert machine.power is Power.OFF
    listed = {found.id: found for found in listing(connector).machines}
    assert listed[machine.machine_id].stamp == Stamp(OURS, order.key)
    assert listed[machine.machine_id].name == order.name


def check_a_full_clone_stands_as_well(world: World) -> None:
    machine = made(world, world.connector(), clone(world, linked=False))
    assert machine.machine_id in world.machines()


def check_the_template_is_listed_and_untouched(world: World) -> None:
    connector = world.connector()
    made(world, connector, clone(world))
    templates = {template.id: template for template in listing(connector).templates}
    assert world.template in templates
    assert world.template in templates
    assert templates[world.template].cannot == ""
    assert templates[world.template].disk_mib > 0


def check_the_same_key_twice_makes_one_machine(world: World) -> None:
    connector, order = world.connector(), clone(world)
    first = made(world, connector, order)
    second = made(world, connector, again(order))
    assert first.machine_id == second.machine_id
    assert first.disks == second.disks
    assert len(world.machines()) == 1


def check_a_lost_answer_is_found_by_a_fresh_connector(world: World) -> None:
    order = clone(world)
    submit(world.connector(), [order])
    machine = made(world, world.connector(), again(order))
    assert list(world.machines()) == [machine.machine_id]


def check_two_connectors_at_once_make_one_machine(world: World) -> None:
    order = clone(world)
    one, other = world.connector(), world.connector()
    first, second = submit(one, [order])[order.key], submit(other, [again(order)])[order.key]
    done = [finish(world, one, order, first), finish(world, other, order, second)]
    assert all(outcome.stage is Stage.DONE for outcome in done)
    assert len(world.machines()) == 1


def check_another_connector_goes_on_with_a_receipt(world: World) -> None:
    order = clone(world)
    outcome = submit(world.connector(), [order])[order.key]
    data = json.loads(json.dumps(dict(outcome.receipt or {})))
    outcome = poll(world.connector(), [Receipt(order, data)])[order.key]
    assert finish(world, world.connector(), order, outcome).stage is Stage.DONE
    assert len(world.machines()) == 1


def check_an_unknown_template_fails_and_leaves_nothing(world: World) -> None:
    order = CloneMachine(key=new_key(), name="nowhere", template=new_key())
    error = refuse(world, world.connector(), order)
    assert isinstance(error, NotFound)
    assert not world.machines()
    assert not world.litter()


def check_awkward_names_are_taken_as_they_are_or_refused(world: World) -> None:
    connector = world.connector()
    for name in AWKWARD_NAMES:
        order = CloneMachine(key=new_key(), name=name, template=world.template, power_on=False)
        outcome = finish(world, connector, order)
        if outcome.stage is Stage.DONE:
            assert isinstance(outcome.result, MachineMade)
            assert world.names()[outcome.result.machine_id] == name, "a name is never changed in silence"
            world.remove(outcome.result.machine_id)
        assert not world.machines(), f"nothing is left of {name!r}"
        assert not world.litter()


def check_a_name_that_is_taken_harms_nobody(world: World) -> None:
    connector, order = world.connector(), clone(world)
    machine = made(world, connector, order)
    litter = world.litter()
    outcome = finish(world, connector, clone(world, name=order.name))
    assert machine.machine_id in world.machines()
    if outcome.stage is Stage.FAILED:
        assert len(world.machines()) == 1
        assert world.litter() == litter


# --- destroying and overwriting --------------------------------------------------------------------------------------


def check_a_deleted_machine_leaves_nothing_and_twice_is_success(world: World) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world, power_on=True)))
    order = DeleteMachine(key=new_key(), machine=machine)
    do(world, connector, order)
    assert not world.machines()
    assert not world.litter()
    do(world, connector, DeleteMachine(key=order.key, machine=machine, attempt=2))
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=machine))


def check_what_a_clone_of_unknown_outcome_made_is_deleted_by_its_key(world: World) -> None:
    connector = world.connector()
    order, bystander = clone(world, power_on=True), clone(world)
    made(world, connector, order)
    kept = made(world, connector, bystander)
    rest = MachineRef("", Stamp(OURS, order.key))
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=rest))
    assert set(world.machines()) == {kept.machine_id}
    do(world, connector, DeleteMachine(key=new_key(), machine=rest))
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, new_key()))))
    assert set(world.machines()) == {kept.machine_id}


def check_a_foreign_stamp_is_a_conflict_and_nothing_happens(world: World) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world, power_on=True))
    before = ref(world, machine)
    theirs = Stamp(THEIRS, new_key())
    world.restamp(machine.machine_id, theirs)
    litter = world.litter()
    for order in (
        DeleteMachine(key=new_key(), machine=before),
        RecycleMachine(key=new_key(), machine=before, name=machine.name, template=world.template),
        SetPower(key=new_key(), machine=before, action=PowerAction.OFF),
        TakeSnapshot(key=new_key(), machine=before, name="mine"),
        OpenScreen(key=new_key(), machine=before),
        ShareResources(key=new_key(), machine=before, share=ResourceShare(weight=400)),
        SetGuestPassword(key=new_key(), machine=before, user="desk", password="straw hat"),
    ):
        if type(order) in connector.takes:
            assert isinstance(refuse(world, connector, order), Conflict), f"{type(order).__name__} on a foreign machine"
    assert world.machines() == {machine.machine_id: theirs}
    assert world.litter() == litter
    listed = {found.id: found for found in listing(connector).machines}
    assert listed[machine.machine_id].power is Power.ON


def check_an_unstamped_reference_does_not_fit_a_stamped_machine(world: World) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    order = DeleteMachine(key=new_key(), machine=MachineRef(machine.machine_id, None))
    assert isinstance(refuse(world, connector, order), Conflict)
    assert machine.machine_id in world.machines()


def check_recycling_gives_disks_that_did_not_exist(world: World) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    order = RecycleMachine(
        key=new_key(), machine=ref(world, machine), name=machine.name, template=world.template, power_on=False
    )
    recycled = made(world, connector, order)
    assert recycled.disks
    assert not set(recycled.disks) & set(machine.disks), "the old disk must not be the evidence of a new one"
    assert not set(machine.disks) & world.litter(), "nothing of the last user is left"
    assert world.machines()[recycled.machine_id] is not None
    assert len(world.machines()) == 1
    second = made(world, world.connector(), order)
    assert second.disks == recycled.disks, "a second attempt finds the first one's disk"


def check_a_missing_machine_is_not_found(world: World) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    world.remove(machine.id)
    for order in (
        SetPower(key=new_key(), machine=machine, action=PowerAction.ON),
        RecycleMachine(key=new_key(), machine=machine, name="x", template=world.template),
    ):
        assert isinstance(refuse(world, connector, order), NotFound)
    assert not world.litter()


# --- power and screens -----------------------------------------------------------------------------------------------


def check_a_power_state_already_there_is_success(world: World) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    steps = (
        (PowerAction.ON, Power.ON),
        (PowerAction.ON, Power.ON),
        (PowerAction.SUSPEND, Power.SUSPENDED),
        (PowerAction.SUSPEND, Power.SUSPENDED),
        (PowerAction.RESUME, Power.ON),
        (PowerAction.RESUME, Power.ON),
        (PowerAction.OFF, Power.OFF),
        (PowerAction.OFF, Power.OFF),
        (PowerAction.SHUTDOWN, Power.OFF),
    )
    lacks: frozenset[PowerAction] = getattr(world, "lacks", frozenset())
    for action, expected in steps:
        order = SetPower(key=new_key(), machine=machine, action=action)
        if action in lacks:
            assert isinstance(refuse(world, connector, order), Unsupported), action
            continue
        assert do(world, connector, order).result == PowerSet(expected), action
        listed = {found.id: found for found in listing(connector).machines}
        assert listed[machine.id].power is expected, action


def check_a_screen_has_a_password_that_is_never_shown(world: World) -> None:
    connector = world.connector()
    if not takes(connector, OpenScreen):
        return
    machine = ref(world, made(world, connector, clone(world, power_on=True)))
    first = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
    second = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
    assert isinstance(first, ScreenOpened)
    assert isinstance(second, ScreenOpened)
    assert first.port > 0
    assert first.host
    if first.password:
        assert first.password not in repr(first)
        assert first.password != second.password, "each viewing has its own"


def check_a_snapshot_is_taken_gone_back_to_and_deleted(world: World) -> None:
    connector = world.connector()
    if not takes(connector, TakeSnapshot, RevertSnapshot, DeleteSnapshot):
        return
    machine = ref(world, made(world, connector, clone(world)))
    before = len(world.litter())
    taken = do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name="before")).result
    assert isinstance(taken, SnapshotTaken)
    do(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id))
    for _ in range(2):
        do(world, connector, DeleteSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id))
    gone = refuse(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id))
    assert isinstance(gone, NotFound)
    assert len(world.litter()) == before, "a snapshot leaves nothing behind"
    do(world, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not world.litter()


def check_what_is_reconfigured_is_listed(world: World) -> None:
    connector = world.connector()
    if not takes(connector, Reconfigure):
        return
    machine = ref(world, made(world, connector, clone(world)))
    (before,) = [found for found in listing(connector).machines if found.id == machine.id]
    wanted = {"vcpus": before.vcpus + 1, "memory_mib": before.memory_mib * 2}
    for _ in range(2):
        do(world, connector, Reconfigure(key=new_key(), machine=machine, **wanted))
    (after,) = [found for found in listing(connector).machines if found.id == machine.id]
    assert {"vcpus": after.vcpus, "memory_mib": after.memory_mib} == wanted


# --- shares ----------------------------------------------------------------------------------------------------------


def _sharing(world: World) -> SharingWorld:
    assert hasattr(world, "share"), "what is set is looked at behind the connector's back"
    return cast(SharingWorld, world)


def check_a_share_of_the_host_is_set_as_asked_and_setting_it_twice_is_success(world: World) -> None:
    connector = world.connector()
    if not takes(connector, ShareResources):
        return
    world = _sharing(world)
    machine, bystander = (ref(world, made(world, connector, clone(world))) for _ in range(2))
    plain, litter = world.share(bystander.id), world.litter()
    wishes = (
        ResourceShare(weight=400, cpu_reservation_percent=25, memory_reservation_percent=50),
        ResourceShare(weight=50, cpu_limit_percent=40),
        ResourceShare(),
    )
    for wish in wishes:
        order = ShareResources(key=new_key(), machine=machine, share=wish)
        for attempt in (order, replace(order, attempt=2)):
            do(world, world.connector(), attempt)
            seen = world.share(machine.id)
            assert seen.weight == wish.weight
            assert seen.cpu_limit_percent in (wish.cpu_limit_percent, plain.cpu_limit_percent)
            for part in ("cpu_reservation_percent", "memory_reservation_percent"):
                assert getattr(seen, part) in (getattr(wish, part), getattr(plain, part))
    assert world.share(bystander.id) == plain, "nobody else's share changes"
    assert world.litter() == litter
    assert world.machines()[machine.id] == machine.stamp


def check_a_share_for_a_missing_machine_is_not_found(world: World) -> None:
    connector = world.connector()
    if not takes(connector, ShareResources):
        return
    machine = ref(world, made(world, connector, clone(world)))
    world.remove(machine.id)
    order = ShareResources(key=new_key(), machine=machine, share=ResourceShare(weight=200))
    assert isinstance(refuse(world, connector, order), NotFound)


# --- batches, inventory, deadlines, secrets --------------------------------------------------------------------------


def check_one_failing_order_spoils_no_other(world: World) -> None:
    connector = world.connector()
    bad = CloneMachine(key=new_key(), name="nowhere", template=new_key())
    good = [clone(world), clone(world)]
    outcomes = submit(connector, [good[0], bad, good[1]])
    assert finish(world, connector, bad, outcomes[bad.key]).stage is Stage.FAILED
    for order in good:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert len(world.machines()) == 2


def check_an_incremental_reading_tells_what_changed(world: World) -> None:
    actor, watcher = world.connector(), world.connector()
    cursor = listing(watcher).cursor
    machine = made(world, actor, clone(world))
    cursor = _wait_until(watcher, cursor, lambda seen: machine.machine_id in {found.id for found in seen.machines})
    world.remove(machine.machine_id)
    _wait_until(watcher, cursor, lambda seen: _tells_gone(seen, machine.machine_id))


def _tells_gone(seen: Inventory, machine: str) -> bool:
    return machine in seen.gone or (seen.complete and machine not in {found.id for found in seen.machines})


def _wait_until(watcher: Connector, cursor: Cursor | None, is_told: Callable[[Inventory], bool]) -> Cursor | None:
    until = time.monotonic() + CHANGE_S
    while True:
        inventory = watcher.inventory(cursor, soon())
        cursor = inventory.cursor
        if is_told(inventory):
            return cursor
        assert time.monotonic() < until, "a change must be told by an incremental reading"
        time.sleep(0.05)


def check_a_cursor_of_another_object_gives_a_complete_listing(world: World) -> None:
    machine = made(world, world.connector(), clone(world))
    cursor = listing(world.connector()).cursor
    for foreign in (cursor, Cursor("garbage"), Cursor("")):
        inventory = world.connector().inventory(foreign, soon(30))
        assert inventory.complete
        assert machine.machine_id in {found.id for found in inventory.machines}


def check_a_listing_says_when_it_began(world: World) -> None:
    before = datetime.now(UTC)
    began_at = listing(world.connector()).began_at
    assert before <= began_at <= datetime.now(UTC)


def check_no_call_outlasts_its_deadline(world: World) -> None:
    order = clone(world)
    for call in (
        lambda connector: connector.check(soon(1)),
        lambda connector: connector.inventory(None, soon(1)),
        lambda connector: list(connector.submit([order], soon(1))),
        lambda connector: list(connector.poll([Receipt(order)], soon(1))),
    ):
        connector, began = world.unreachable(), time.monotonic()
        try:
            call(connector)
        except Unreachable:
            pass
        else:
            raise AssertionError("an endpoint that never answers is unreachable")
        assert time.monotonic() - began < 5, "a call ends by its deadline"
        began = time.monotonic()
        connector.close()
        assert time.monotonic() - began < 5, "closing waits for nobody"


def check_nothing_is_begun_after_the_deadline(world: World) -> None:
    connector, order = world.connector(), clone(world)
    connector.check(soon())
    try:
        outcomes = list(connector.submit([order], time.monotonic() - 1))
    except Unreachable:
        outcomes = []
    assert all(outcome.stage is Stage.RUNNING for outcome in outcomes)
    time.sleep(0.5)
    assert not world.machines()
    assert not world.litter()


def check_secrets_stand_in_no_text(world: World) -> None:
    connector, dead = world.connector(), world.unreachable()
    texts = [repr(connector), str(connector), repr(dead), repr(type(connector).settings), repr(connector.check(soon()))]
    for call in (lambda: dead.check(soon(0.5)), lambda: dead.inventory(None, soon(0.5))):
        try:
            call()
        except ConnectorError as error:
            texts += [str(error), repr(error), error.message, error.platform_words]
    refused = refuse(world, connector, CloneMachine(key=new_key(), name="nowhere", template=new_key()))
    texts += [str(refused), repr(refused), refused.platform_words]
    for secret in world.secrets:
        assert not any(secret in text for text in texts), "a secret stands in a text"


def check_closing_twice_is_harmless(world: World) -> None:
    connector = world.connector()
    connector.check(soon())
    connector.close()
    try:
        connector.close()
    except Exception as error:
        raise AssertionError("closing never raises") from error


def check_what_it_takes_is_declared(world: World) -> None:
    connector = world.connector()
    platform = connector.check(soon())
    assert platform.takes <= type(connector).takes
    assert platform.product
    assert platform.version
    assert {CloneMachine, RecycleMachine, DeleteMachine, SetPower} <= platform.takes


CHECKS: tuple[Callable[[World], None], ...] = tuple(
    check for name, check in sorted(globals().items()) if name.startswith("check_")
)


JUDGES: Mapping[Callable[[World], None], tuple[type[Order], ...]] = {
    check_a_clone_stands_bears_our_stamp_and_is_listed: (CloneMachine,),
    check_a_full_clone_stands_as_well: (CloneMachine,),
    check_a_deleted_machine_leaves_nothing_and_twice_is_success: (DeleteMachine,),
    check_what_a_clone_of_unknown_outcome_made_is_deleted_by_its_key: (DeleteMachine,),
    check_recycling_gives_disks_that_did_not_exist: (RecycleMachine,),
    check_a_power_state_already_there_is_success: (SetPower,),
    check_a_snapshot_is_taken_gone_back_to_and_deleted: (TakeSnapshot, RevertSnapshot, DeleteSnapshot),
    check_what_is_reconfigured_is_listed: (Reconfigure,),
    check_a_share_of_the_host_is_set_as_asked_and_setting_it_twice_is_success: (ShareResources,),
    check_a_screen_has_a_password_that_is_never_shown: (OpenScreen,),
}
"""Check -> the orders for which it speaks: what they do is looked at on the platform."""


def name_of(check: Callable[[World], None]) -> str:
    return check.__name__.removeprefix("check_")
