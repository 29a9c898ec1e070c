"""The cluster of the demo outlives its process."""

from __future__ import annotations

from pathlib import Path

from lab.clock import Clock
from lab.hypercore.devices import extra_of
from lab.hypercore.server import HyperCoreNode
from lab.platform import Platform, site, stand_up


def cluster_of(platform: Platform) -> HyperCoreNode:
    node = platform.servers[0]
    assert isinstance(node, HyperCoreNode)
    return node


def test_snapshots_images_and_disks_are_there_again(tmp_path: Path) -> None:
    clock = Clock(0)
    here = site("hypercore", tmp_path, clock)
    first = stand_up(here)
    cluster, golden = cluster_of(first).cluster, first.registration.template
    with first.world as world:
        world.write(extra_of(world, world.machine(golden)).devices[0].disk, 0, b"golden")
        cluster.snapshot({"domainUUID": golden, "label": "kept"})
        clock.advance(5)
        iso = cluster.add_iso({"name": "kept.iso", "size": 3})["createdUUID"]
    clock.advance(5)
    with first.world:
        cluster.fill_iso(iso, b"abc")
    clock.advance(5)
    here.save(first)
    second = stand_up(site("hypercore", tmp_path, clock))
    again = cluster_of(second).cluster
    assert again is not cluster
    assert again.id == cluster.id
    assert again.isos == cluster.isos
    (point,) = again.points.values()
    assert point == cluster.points[point.uuid]
    with second.world as world:
        assert world.read(point.devices[0].disk, 0, 6) == b"golden"
        assert extra_of(world, world.machine(golden)) == extra_of(first.world, first.world.machine(golden))
    assert second.registration == first.registration
    for platform in (first, second):
        platform.stop()
