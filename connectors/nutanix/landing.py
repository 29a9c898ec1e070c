"""Machines brought up from recovery points: disks as images, then a machine of copies of those images.

    land      1. what an unfinished attempt left is removed; a finished machine is found by its stamp
              2. the whole machine is decided: firmware, buses, cards (`hardware`)
    open      an upload to Prism Central's object store, part by part, as the qcow2 image that the disk will be
    commit    the upload becomes an object, the object an image, and goes
    finish    one request makes the machine, with our stamp, of all its images; those go. A template bears another mark,
              and the category by which templates are known

The image is qcow2 even where that saves nothing. Prism tells formats by a file's first bytes: of a flat disk those are
the guest's, who could write a header of any format there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from connectors.base import MachineRef
from connectors.errors import (
    Busy,
    Conflict,
    ConnectorError,
    NotFound,
    Unsupported,
)
from connectors.nutanix import errands, hardware, mapping, names
from connectors.nutanix.client import Json, OutOfTime, literal
from connectors.nutanix.errands import IMAGES, MACHINES, Errand, Trail, Working
from connectors.nutanix.objects import ObjectStore
from connectors.nutanix.uploads import UploadSink
from connectors.replication import LandingWish


@dataclass(frozen=True, slots=True)
class Place:
    """Where the machine is to stand."""

    cluster: str
    container: str


# --- beginning -------------------------------------------------------------------------------------------------------


def land(
    errand: Errand, wish: LandingWish, trail: Trail, working: Working, tell: Callable[[], ObjectStore]
) -> NutanixLanding:
    """Raises `NotFound`, `Unsupported`, `CapacityExhausted`, `Busy`."""
    mapping.require_usable(wish.name)
    clear(errand, None, tell)
    # After clearing: where that found anything it has waited for as long as a machine may be listed late, which a mover
    # may have made just before it was lost.
    errand.begin("Looking for the machine")
    machines = errand.client.list("vmm", MACHINES.path, errand.deadline, doing=errand.doing).items
    prefix = _prefix(errand)
    if done := _finished(errand, machines):
        return NutanixLanding(wish, None, None, prefix, trail, working, tell, done=done)
    _remove_sent(errand, tell)
    place = _place(errand, wish)
    networks, spare = _networks(errand, wish, place.cluster)
    taken = frozenset(mac for item in machines for mac in hardware.macs_of(item))
    machine = hardware.decide(wish.configuration, networks, spare, wish.booted_on, taken)
    return NutanixLanding(wish, machine, place, prefix, trail, working, tell)


def _finished(errand: Errand, machines: Iterable[Json]) -> str:
    """The machine that a landing of this key has made, whatever it is called by now; empty if there is none."""
    for vm in map(mapping.read_vm, machines):
        # A clone that is just being made has its template's description.
        if vm.stamp == errand.stamp or (vm.stamp is None and mapping.template_stamp(vm.description) == errand.stamp):
            return vm.id
    return ""


def _place(errand: Errand, wish: LandingWish) -> Place:
    errand.begin("Looking at storage")
    listing = errand.client.list("clustermgmt", "config/storage-containers", errand.deadline, doing=errand.doing)
    for item in listing.items:
        if mapping.container_id(item) == wish.storage:
            break
    else:
        raise NotFound(f"Storage container {wish.storage} is not on {errand.settings.endpoint}.")
    if not mapping.read_storage(item, None).is_up:
        raise Conflict(f"Storage container {item.get('name')!r} is being removed. Choose another one.")
    cluster = str(item.get("clusterExtId") or "")
    if not cluster:
        raise Unsupported(
            f"Prism Central does not tell to which cluster storage container {item.get('name')!r} belongs. Choose "
            "another one."
        )
    _require_host(errand, wish.host, cluster)
    return Place(cluster, wish.storage)


def _require_host(errand: Errand, host: str | None, cluster: str) -> None:
    """In the storage's cluster. Which host a machine starts on is AHV's own choice."""
    if not host:
        return
    listing = errand.client.list("clustermgmt", "config/hosts", errand.deadline, doing="looking for the host")
    found = {mapping.read_host(item).id: mapping.cluster_of_host(item) for item in listing.items}
    if host not in found:
        raise NotFound(f"Host {host} is not on {errand.settings.endpoint}.")
    if found[host] and found[host] != cluster:
        raise Unsupported("The host and the storage container are of two clusters. Choose both of one.")


def _networks(errand: Errand, wish: LandingWish, cluster: str) -> tuple[list[str], str]:
    """The wished ones, and one under which cards without network are filed; empty if the cluster has none."""
    errand.begin("Looking at the networks")
    listing = errand.client.list("networking", "config/subnets", errand.deadline, doing=errand.doing)
    places = {str(item.get("extId")): mapping.clusters_of_subnet(item) for item in listing.items}
    for network in wish.networks:
        if network and network not in places:
            raise NotFound(f"Network {network} is not on {errand.settings.endpoint}.")
        if network and places[network] and cluster not in places[network]:
            raise Unsupported("A network is of another cluster than the storage container. Choose both of one.")
    fitting = sorted(subnet for subnet, of in places.items() if not of or cluster in of)
    return list(wish.networks), fitting[0] if fitting else ""


def clear(errand: Errand, trail: Trail | None, tell: Callable[[], ObjectStore]) -> None:
    """Nothing of an unfinished landing stays. There is no unfinished machine: one request makes it whole."""
    with suppress(Unsupported):  # where nothing can be sent, nothing was
        _remove_sent(errand, tell)
    errands.remove(errand, _prefix(errand), (IMAGES,), trail)


def _remove_sent(errand: Errand, tell: Callable[[], ObjectStore]) -> None:
    """Raises `Unsupported` if this account can send nothing."""
    errand.begin("Removing what was sent")
    store = tell()
    try:
        store.remove(_prefix(errand), errand.deadline)
    finally:
        store.close()


def _prefix(errand: Errand) -> str:
    return names.landing_prefix(errand.surroundings.installation, errand.order.key)


# --- the machine in the making ---------------------------------------------------------------------------------------


class NutanixLanding:
    def __init__(
        self,
        wish: LandingWish,
        machine: hardware.Machine | None,
        place: Place | None,
        prefix: str,
        trail: Trail,
        working: Working,
        tell: Callable[[], ObjectStore],
        *,
        done: str = "",
    ) -> None:
        """`done`: the machine, if it stands already."""
        self._wish = wish
        self._machine = machine
        self._place = place
        self._trail = trail
        self._working = working
        self._tell = tell
        self._done = done
        self._prefix = prefix
        """Of the names of all that is temporary."""
        self._sinks: dict[str, UploadSink] = {}
        """The last one that was opened for each disk."""

    @property
    def warnings(self) -> Sequence[str]:
        return self._machine.warnings if self._machine is not None else ()

    @property
    def is_done(self) -> bool:
        return self._machine is None

    def open(self, disk: str) -> UploadSink:
        """Raises `NotFound`, `Conflict`, and what a sink raises."""
        if self._machine is None or self._place is None:
            raise Conflict(f"Machine {self._wish.name!r} stands already. Nothing is written to its disks.")
        placed = next((one for one in self._machine.disks if one.name == disk), None)
        if placed is None:
            raise NotFound(f"The recovery point of {self._wish.name!r} holds no disk {disk!r}.")
        # Another name at each attempt: what a mover that froze wakes up to write never meets what another one wrote.
        name = f"{self._prefix}{self._machine.disks.index(placed)}.{uuid4().hex[:16]}"
        sink = UploadSink(
            f"Disk {disk} of {self._wish.name}", name, placed.size, self._place.cluster, self._trail, self._working,
            self._tell,
        )  # fmt: skip
        self._sinks[disk] = sink
        return sink

    def finish(self, deadline: float) -> MachineRef:
        """Raises `Conflict` if a disk is not whole any more, `CapacityExhausted`."""
        errand = self._working(deadline, "Making the machine")
        try:
            if not self._done:
                self._done = self._make(errand)
            with suppress(ConnectorError):  # the machine stands; whoever asked for it has the rest cleared
                clear(errand, self._trail, self._tell)
            return MachineRef(self._done, None if self._wish.is_template else errand.stamp)
        except OutOfTime:
            raise Busy(f"Machine {self._wish.name!r} is not made in time. It is tried again.") from None
        finally:
            errand.client.close()

    def _make(self, errand: Errand) -> str:
        machine, place = self._machine, self._place
        if machine is None or place is None:
            raise NotFound(f"Machine {self._wish.name!r} was there and is gone. Bring it up again.")
        images = {}
        for disk in machine.disks:
            sink = self._sinks.get(disk.name)
            if sink is None or not sink.image:
                raise Conflict(f"Disk {disk.name} of {self._wish.name!r} is not there in whole. Bring it up again.")
            images[disk.name] = sink.image
        errand.begin("Making the machine")
        version = errand.client.version("vmm", errand.deadline)
        body = hardware.vm_body(
            machine, name=self._wish.name, stamp=errand.stamp, cluster=place.cluster, container=place.container,
            images=images, version=version, template_category=self._category(errand),
        )  # fmt: skip
        # The images are this attempt's, and so is the request id: asked again it brings back the same machine.
        task = errands.start(errand, self._trail, MACHINES, body, "machine " + " ".join(sorted(images.values())))
        try:
            return errands.made(errand, MACHINES, errands.wait(errand, task), self._wish.name)
        except ConnectorError:
            self._undo(errand, task)
            raise

    def _category(self, errand: Errand) -> str | None:
        """Id of what marks templates here; empty if nothing need, None for what is none. Raises `Unsupported`."""
        if not self._wish.is_template:
            return None
        if (wanted := errand.settings.template_mark) is None:
            return ""
        errand.begin("Looking at the categories")
        query = {"$filter": f"key eq {literal(wanted[0])} and value eq {literal(wanted[1])}"}
        listing = errand.client.list("prism", "config/categories", errand.deadline, query=query, doing=errand.doing)
        for item in listing.items:
            if (item.get("key"), item.get("value")) == wanted:
                return str(item.get("extId") or "")
        raise Unsupported(
            f"There is no category {wanted[0]}:{wanted[1]} on {errand.settings.endpoint}, by which to know "
            "templates. Make it, or name another one in the settings of the hypervisor."
        )

    def _undo(self, errand: Errand, task: str) -> None:
        """A task that fails may leave its machine: it goes if it is ours."""
        with suppress(ConnectorError, OutOfTime):
            found = errands.look(errand, task)
            if not found.is_over or found.is_done:
                return
            made = found.made(MACHINES.rel)
            seen = errand.read(made) if made else None
            if seen is not None and errand.stamp in (seen.vm.stamp, mapping.template_stamp(seen.vm.description)):
                errands.await_gone(errand, errands.delete(errand, MACHINES, made))

    def close(self) -> None:
        """Every sink lets go of its own connections."""
