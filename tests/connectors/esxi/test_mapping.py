"""vSphere's properties in our words, and our wishes in vSphere's."""

from __future__ import annotations

import base64
import json

import pytest
from lxml import etree

from connectors.base import Agent, GuestSeed, Power, ResourceShare, Stamp
from connectors.errors import Unsupported
from connectors.esxi import mapping
from connectors.esxi.mapping import Allocation
from connectors.esxi.soap import Element, Seen

XSI = 'xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def val(inner: str) -> Element:
    return etree.fromstring(f"<val {XSI}>{inner}</val>")


def seen(kind: str = "VirtualMachine", **values: str) -> Seen:
    """Double underscores stand for dots."""
    return Seen(kind, "vm-1", {name.replace("__", "."): val(inner) for name, inner in values.items()})


@pytest.mark.parametrize(
    ("state", "expected"),
    [("poweredOn", Power.ON), ("poweredOff", Power.OFF), ("suspended", Power.SUSPENDED), ("", Power.UNKNOWN),
     ("inventedState", Power.UNKNOWN)],
)  # fmt: skip
def test_a_power_that_nobody_knows_is_unknown(state: str, expected: Power) -> None:
    assert mapping.power(seen(runtime__powerState=state)) is expected


@pytest.mark.parametrize(
    ("running", "installed", "heartbeat", "expected"),
    [
        ("guestToolsRunning", "guestToolsCurrent", "green", Agent.ANSWERING),
        ("guestToolsExecutingScripts", "guestToolsCurrent", "gray", Agent.ANSWERING),
        ("guestToolsRunning", "guestToolsCurrent", "red", Agent.SILENT),
        ("guestToolsNotRunning", "guestToolsCurrent", "gray", Agent.SILENT),
        ("guestToolsNotRunning", "guestToolsNotInstalled", "gray", Agent.ABSENT),
    ],
)
def test_an_agent_answers_if_its_heart_beats(running: str, installed: str, heartbeat: str, expected: Agent) -> None:
    machine = seen(
        runtime__powerState="poweredOn", guest__toolsRunningStatus=running, guest__toolsVersionStatus2=installed,
        guestHeartbeatStatus=heartbeat,
    )  # fmt: skip
    assert mapping.agent(machine) is expected


def test_a_stamp_is_read_by_key_or_from_the_whole_configuration() -> None:
    def option(key: str, value: str) -> str:
        return f'<OptionValue><key>{key}</key><value xsi:type="xsd:string">{value}</value></OptionValue>'

    whole = seen(
        config__extraConfig=option("a", "b") + option("deskyard.installation", "i") + option("deskyard.key", "k")
    )
    keyed = Seen("VirtualMachine", "vm-1", {
        'config.extraConfig["deskyard.installation"]': val("<key>deskyard.installation</key><value>i</value>"),
        'config.extraConfig["deskyard.key"]': val("<key>deskyard.key</key><value>k</value>"),
    })  # fmt: skip
    assert mapping.stamp(whole) == mapping.stamp(keyed) == Stamp("i", "k")
    assert mapping.stamp(seen(config__extraConfig=option("deskyard.key", "k"))) is None


def test_addresses_lead_somewhere_and_the_primary_is_first() -> None:
    net = (
        "<GuestNicInfo><ipAddress>fe80::1</ipAddress><ipAddress>2001:db8::7</ipAddress><ipAddress>10.0.0.7</ipAddress>"
    )
    machine = seen(guest__ipAddress="10.0.0.9", guest__net=f"{net}<ipAddress>169.254.3.4</ipAddress></GuestNicInfo>")
    assert mapping.addresses(machine) == ("10.0.0.9", "10.0.0.7", "2001:db8::7")
    assert mapping.guest_addresses(["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "junk", "", "127.64.0.9"]) == (  # noqa: S104
        "127.64.0.9",
    )


def test_uplinks_are_no_networks() -> None:
    tag = "<Tag><key>SYSTEM/DVS.UPLINKPG</key></Tag>"
    assert mapping.network(seen("DistributedVirtualPortgroup", name="uplinks", tag=tag)) is None
    found = mapping.network(
        seen("DistributedVirtualPortgroup", name="Labs", config__defaultPortConfig="<vlan><vlanId>20</vlanId></vlan>")
    )
    assert found is not None
    assert (found.name, found.kind) == ("Labs", "VLAN 20 (distributed port group)")


def test_a_host_in_maintenance_is_not_up() -> None:
    assert mapping.host(seen("HostSystem", runtime__connectionState="connected")).is_up
    assert not mapping.host(
        seen("HostSystem", runtime__connectionState="connected", runtime__inMaintenanceMode="true")
    ).is_up
    assert not mapping.host(seen("HostSystem", runtime__connectionState="notResponding")).is_up


# --- devices ---------------------------------------------------------------------------------------------------------

DEVICES = """
<VirtualDevice xsi:type="ParaVirtualSCSIController"><key>1000</key><busNumber>0</busNumber></VirtualDevice>
<VirtualDevice xsi:type="VirtualVideoCardFromTheFuture"><key>500</key></VirtualDevice>
<VirtualDevice xsi:type="VirtualDisk"><key>2000</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo">
<fileName>[fast] golden/golden-000001.vmdk</fileName><datastore type="Datastore">datastore-1</datastore>
<diskMode>persistent</diskMode><parent><fileName>[fast] golden/golden.vmdk</fileName></parent></backing>
<controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>20971520</capacityInKB></VirtualDevice>
<VirtualDevice xsi:type="VirtualE1000e"><key>4000</key><deviceInfo><label>Network adapter 1</label></deviceInfo>
<backing xsi:type="VirtualEthernetCardNetworkBackingInfo"><deviceName>VM Network</deviceName>
<network type="Network">network-1</network></backing></VirtualDevice>
"""


def test_disks_cards_and_controllers_are_read_and_the_rest_is_let_be() -> None:
    found = mapping.devices(val(DEVICES))
    assert found.disks[0].file == "[fast] golden/golden-000001.vmdk"
    assert found.disks[0].parent == "[fast] golden/golden.vmdk"
    assert (found.disks[0].storage, found.disks[0].capacity_kib) == ("datastore-1", 20_971_520)
    assert [nic.kind for nic in found.nics] == ["VirtualE1000e"]
    assert [controller.key for controller in found.controllers] == [1000]
    assert mapping.cannot_clone(found) == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("VirtualDiskFlatVer2BackingInfo", "VirtualDiskRawDiskMappingVer1BackingInfo"), "no ordinary virtual disk"),
        (("<diskMode>persistent", "<diskMode>independent_persistent"), "independent"),
        (('"VirtualDisk"', '"VirtualFloppy"'), "no disk"),
    ],
)
def test_what_cannot_be_cloned_is_told(change: tuple[str, str], word: str) -> None:
    assert word in mapping.cannot_clone(mapping.devices(val(DEVICES.replace(*change))))


def test_an_edited_card_keeps_its_kind_and_place_and_gets_a_new_address() -> None:
    nics = mapping.devices(val(DEVICES)).nics
    changes = mapping.nic_changes(
        nics, [mapping.Socket("network-2", "Labs"), mapping.Socket("pg", "Dvs", "50 2e", "pg-7")]
    )
    assert [change.operation for change in changes] == ["edit", "add"]
    assert changes[0].device.key == 4000
    assert type(changes[0].device).__name__.endswith("VirtualE1000e")
    assert changes[0].device.addressType == "generated"
    assert changes[1].device.backing.port.portgroupKey == "pg-7"


def test_a_path_on_a_datastore_is_split() -> None:
    assert mapping.split_path("[fast one] a/b/c.vmdk") == ("fast one", "a/b", "c.vmdk")
    with pytest.raises(Unsupported):
        mapping.split_path("/vmfs/volumes/x")


def test_snapshots_are_found_at_any_depth() -> None:
    tree = (
        '<currentSnapshot type="VirtualMachineSnapshot">snapshot-2</currentSnapshot><rootSnapshotList>'
        "<snapshot>snapshot-1</snapshot><name>a%2fb</name><description>x</description><childSnapshotList>"
        "<snapshot>snapshot-2</snapshot><name>c</name></childSnapshotList></rootSnapshotList>"
    )
    assert [(point.id, point.name) for point in mapping.points(val(tree))] == [
        ("snapshot-1", "a/b"),
        ("snapshot-2", "c"),
    ]
    assert mapping.current_point(val(tree)) == "snapshot-2"
    assert (mapping.points(None), mapping.current_point(None)) == ((), "")


# --- wishes ----------------------------------------------------------------------------------------------------------


def test_a_seed_is_what_cloud_init_reads_and_quotes_stay_inside() -> None:
    told = mapping.seed_options(GuestSeed('desk"1\nx: y', "#cloud-config\npackages: []\n"), "i-1")
    metadata = json.loads(base64.b64decode(told["guestinfo.metadata"]))
    assert metadata == {"instance-id": "i-1", "local-hostname": 'desk"1\nx: y'}
    assert base64.b64decode(told["guestinfo.userdata"]) == b"#cloud-config\npackages: []\n"
    assert told["guestinfo.userdata.encoding"] == "base64"


def test_without_a_seed_the_templates_own_is_removed() -> None:
    assert set(mapping.seed_options(None, "i-1").values()) == {""}


def test_an_answer_file_goes_to_sysprep_and_nowhere_else() -> None:
    seed = GuestSeed("desk-1", answer_file="<unattend>secret</unattend>")
    assert set(mapping.seed_options(seed, "i-1").values()) == {""}
    made = mapping.customization(seed, nics=2)
    assert made is not None
    assert made.identity.value == "<unattend>secret</unattend>"
    assert len(made.nicSettingMap) == 2
    assert mapping.customization(GuestSeed("desk-1"), 1) is None


@pytest.mark.parametrize(
    ("share", "cpu", "memory"),
    [
        (ResourceShare(), Allocation(2000, "normal", 0, -1), Allocation(40_960, "normal", 0, -1)),
        (ResourceShare(weight=200), Allocation(4000, "high", 0, -1), Allocation(81_920, "high", 0, -1)),
        (ResourceShare(weight=50), Allocation(1000, "low", 0, -1), Allocation(20_480, "low", 0, -1)),
        (ResourceShare(weight=150), Allocation(3000, "custom", 0, -1), Allocation(61_440, "custom", 0, -1)),
        (ResourceShare(weight=10_000), Allocation(200_000, "custom", 0, -1), Allocation(1_000_000, "custom", 0, -1)),
        (ResourceShare(weight=1), Allocation(20, "custom", 0, -1), Allocation(409, "custom", 0, -1)),
        (
            ResourceShare(cpu_reservation_percent=50, cpu_limit_percent=75, memory_reservation_percent=100),
            Allocation(2000, "normal", 2600, 3900),
            Allocation(40_960, "normal", 4096, -1),
        ),
    ],
)
def test_weights_are_vspheres_shares(share: ResourceShare, cpu: Allocation, memory: Allocation) -> None:
    assert mapping.allocations(share, vcpus=2, memory_mib=4096, core_mhz=2600) == (cpu, memory)


def test_what_is_set_already_is_known_by_its_level_or_its_number() -> None:
    assert mapping.is_same(Allocation(2000, "normal", 0, -1), Allocation(1, "normal", 0, -1))
    assert not mapping.is_same(Allocation(2000, "custom", 0, -1), Allocation(1, "custom", 0, -1))
    assert not mapping.is_same(Allocation(2000, "normal", 0, -1), Allocation(2000, "normal", 5, -1))
    assert not mapping.is_same(Allocation(2000, "normal", 0, -1), None)
