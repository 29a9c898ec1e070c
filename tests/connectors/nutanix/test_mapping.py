"""Prism's JSON and our data, and which of our errors a refusal is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import errors
from connectors.base import Agent, GuestSeed, Power, Stamp
from connectors.errors import Unsupported
from connectors.nutanix import faults, mapping
from connectors.nutanix.client import error_words
from connectors.nutanix.faults import Refusal

KEY = "11111111-2222-4333-8444-555555555555"
WORDS = st.text(min_size=1, max_size=60)


# --- stamps ----------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(installation=WORDS, text=st.text(max_size=80).filter(lambda text: "[deskyard" not in text))
def test_a_stamp_is_read_as_it_was_written_and_the_text_before_it_stays(installation: str, text: str) -> None:
    stamp = Stamp(installation, KEY)
    written = mapping.stamped(text, stamp)
    assert mapping.stamp_of("desk-1", written) == stamp
    assert written.startswith(text.strip())
    assert mapping.stamped(written, stamp) == written


@settings(max_examples=50)
@given(installation=st.uuids().map(str) | WORDS)
def test_a_fresh_name_fits_prism_and_is_known_again(installation: str) -> None:
    name = mapping.fresh_name(Stamp(installation, KEY))
    assert len(name) <= mapping.NAME_LIMIT
    assert mapping.is_fresh(name)
    read = mapping.stamp_of(name, "")
    assert read is not None
    assert read.key == KEY


def test_the_stamp_of_an_installations_uuid_is_read_from_a_fresh_name() -> None:
    stamp = Stamp("8a0d0b5e-5c6d-4d5e-9a42-6f5f7d8a9b10", KEY)
    assert mapping.stamp_of(mapping.fresh_name(stamp), "[deskyard somebody-else 1]") == stamp


def test_a_new_stamp_takes_the_place_of_an_old_one() -> None:
    old = mapping.stamped("Golden image.", Stamp("a", "1"))
    assert mapping.stamped(old, Stamp("b", "2")) == "Golden image.\n[deskyard b 2]"


def test_a_clone_of_a_landed_template_bears_its_own_stamp_alone() -> None:
    mark = mapping.template_mark(Stamp("in stallation", "1"))
    assert mapping.template_stamp(f"Golden.\n{mark}") == Stamp("in stallation", "1")
    assert mapping.stamp_of("desk", mark) is None
    clone = mapping.stamped(f"Golden.\n{mark}", Stamp("b", "2"))
    assert clone == "Golden.\n[deskyard b 2]"
    assert mapping.template_stamp(clone) is None


def test_request_ids_are_the_same_for_the_same_step_and_never_for_another() -> None:
    ids = {mapping.request_id(KEY, step, attempt) for step in ("clone/a", "name/a", "name/b") for attempt in (0, 1)}
    assert len(ids) == 6
    assert mapping.request_id(KEY, "clone/a") in ids


@pytest.mark.parametrize("name", ["", " x", "x ", "x" * 81, "a\nb", "a\x00b", f"dsky.here.{KEY}"])
def test_names_that_would_not_stay_as_they_are_are_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        mapping.require_usable(name)


# --- machines --------------------------------------------------------------------------------------------------------

VM: dict[str, Any] = {
    "extId": "m",
    "name": "desk-1",
    "numSockets": 2,
    "numCoresPerSocket": 3,
    "memorySizeBytes": 4 * 1024**3,
    "powerState": "ON",
    "cluster": {"extId": "c"},
    "host": {"extId": "h"},
    "guestTools": {"isInstalled": True, "isReachable": True},
    "disks": [
        {"extId": "d", "backingInfo": {"$objectType": "vmm.v4.ahv.config.VmDisk", "diskExtId": "dd",
         "diskSizeBytes": 1024**3, "storageContainer": {"extId": "s"}}},
        {"extId": "g", "backingInfo": {"$objectType": "vmm.v4.ahv.config.ADSFVolumeGroupReference"}},
    ],
    "nics": [
        {"networkInfo": {"subnet": {"extId": "n"}, "ipv4Info": {"learnedIpAddresses": [{"value": "169.254.3.4"},
         {"value": "10.1.2.3"}]}, "ipv4Config": {"ipAddress": {"value": "10.1.2.4"}}}},
        {"nicNetworkInfo": {"subnet": {"extId": "o"}, "ipv4Config": {"ipAddress": {"value": "10.9.9.9"}}}},
    ],
}  # fmt: skip


def test_a_machine_is_read_in_both_spellings_of_its_networks() -> None:
    vm = mapping.read_vm(VM)
    assert (vm.vcpus, vm.memory_mib, vm.power, vm.host, vm.agent) == (6, 4096, Power.ON, "h", Agent.ANSWERING)
    assert [(disk.id, disk.container, disk.size_mib) for disk in vm.disks] == [("dd", "s", 1024)]
    assert [nic.subnet for nic in vm.nics] == ["n", "o"]
    assert vm.addresses == ("10.1.2.3", "10.1.2.4", "10.9.9.9")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(VM)), _JSON))
def test_whatever_a_server_sends_in_a_field_crashes_nothing(odd: dict[str, Any]) -> None:
    mapping.read_vm(VM | odd)
    mapping.read_task(odd)
    mapping.read_cluster(odd)
    mapping.read_host(odd)
    mapping.read_network(odd)
    mapping.read_storage(odd, None)
    mapping.read_point(odd)
    error_words(odd)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (["169.254.1.1", "10.0.0.1"], ("10.0.0.1",)),
        (["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "nonsense", ""], ()),  # noqa: S104
        (["10.0.0.1", "10.0.0.1", "2001:db8::1"], ("10.0.0.1", "2001:db8::1")),
    ],
)
def test_only_addresses_that_lead_somewhere_count(told: list[str], kept: tuple[str, ...]) -> None:
    assert mapping.guest_addresses(told) == kept


def test_an_update_keeps_what_it_does_not_know_and_sends_no_null() -> None:
    body = mapping.updated_vm({"name": "a", "new": {"x": 1}, "gone": None}, {"name": "b"})
    assert body == {"name": "b", "new": {"x": 1}}


# --- guests ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return base64.b64decode(text).decode()


def test_cloud_init_gets_its_document_and_a_new_instance() -> None:
    body = mapping.customization(GuestSeed("desk-1", "#cloud-config\n{}\n"), KEY, (4, 2))
    assert plain(body["config"]["cloudInitScript"]["value"]) == "#cloud-config\n{}\n"
    assert json.loads(plain(body["config"]["metadata"])) == {
        "uuid": KEY,
        "hostname": "desk-1",
        "local-hostname": "desk-1",
    }


def test_a_guest_without_a_document_still_gets_its_name() -> None:
    body = mapping.customization(GuestSeed('desk "1"'), KEY, (4, 2))
    assert plain(body["config"]["cloudInitScript"]["value"]) == '#cloud-config\nhostname: "desk \\"1\\""\n'


@pytest.mark.parametrize(("size", "version", "fits"), [(24_000, (4, 2), True), (24_003, (4, 2), False),
                                                       (24_003, (4, 3), True), (96_003, (4, 3), False)])  # fmt: skip
def test_a_document_may_be_as_long_as_prism_takes_it(size: int, version: tuple[int, int], fits: bool) -> None:
    seed = GuestSeed("x", "y" * size)
    if fits:
        mapping.customization(seed, KEY, version)
    else:
        with pytest.raises(Unsupported, match="too long"):
            mapping.customization(seed, KEY, version)


def test_networks_are_spelled_as_the_version_has_them() -> None:
    how: dict[str, Any] = {"name": "x", "vcpus": 2, "memory_mib": None, "subnets": ["n"], "seed": None, "instance": KEY}
    assert "networkInfo" in mapping.clone_body(**how, version=(4, 0))["nics"][0]
    assert "nicNetworkInfo" in mapping.clone_body(**how, version=(4, 1))["nics"][0]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_clones_task_names_its_source_too() -> None:
    entities = [
        {"rel": "vmm:ahv:config:vm", "extId": "source"},
        {"rel": "vmm:ahv:config:vm:nic", "extId": "nic"},
        {"rel": "vmm:ahv:config:vm", "extId": "made"},
    ]
    task = mapping.read_task({"status": "SUCCEEDED", "entitiesAffected": entities})
    assert task.made(mapping.VM_REL, but="source") == "made"
    assert mapping.read_task({"status": "SUCCEEDED"}).made(mapping.VM_REL) == ""


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING", "CANCELING", "SUSPENDED", "$UNKNOWN", None])
def test_a_task_is_over_only_when_it_says_so(status: str | None) -> None:
    assert not mapping.read_task({"status": status} if status else {}).is_over


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(401), errors.CredentialsRejected),
        (Refusal(403), errors.Unsupported),
        (Refusal(404, "VMM-30100 VM_NOT_FOUND", is_entity=True), errors.NotFound),
        (Refusal(404), errors.Unsupported),
        (Refusal(409), errors.Conflict),
        (Refusal(429), errors.Busy),
        (Refusal(400, "RATE_LIMIT_EXCEEDED"), errors.Busy),
        (Refusal(500, "VMM-10000 INTERNAL_ERROR"), errors.PlatformFault),
        (Refusal(501), errors.Unsupported),
        (Refusal(503), errors.Busy),
        (Refusal(418), errors.PlatformFault),
        (Refusal(0, "NoHostResources: No host has enough available memory for VM x"), errors.CapacityExhausted),
        (Refusal(0, "Insufficient storage space: storage container x is full"), errors.CapacityExhausted),
        (Refusal(0, "VM_ETAG_MISMATCH"), errors.Conflict),
        (Refusal(0, "Another operation is in progress on the VM"), errors.Busy),
        (Refusal(0, "FAILED"), errors.PlatformFault),
    ],
    ids=str,
)
def test_a_refusal_is_what_the_broker_has_to_do_next(refusal: Refusal, kind: type[errors.ConnectorError]) -> None:
    error = faults.ours(refusal, "cloning the template", "prism:9440")
    assert type(error) is kind
    assert error.message.startswith("Cloning the template failed at prism:9440. ")
    assert "VMM-" not in error.message


def test_each_of_our_errors_has_advice() -> None:
    assert set(faults.BY_STATUS.values()) | {kind for _, kind in faults.BY_WORDS} <= faults.ADVICE.keys()


def test_error_bodies_are_read_in_both_shapes() -> None:
    message = {"code": "VMM-30100", "errorGroup": "VM_NOT_FOUND", "message": "gone"}
    assert error_words({"data": {"error": [message]}}) == ("VMM-30100 VM_NOT_FOUND gone", True)
    schema = {"error": "Bad Request", "validationErrorMessages": [{"attributePath": "$limit", "message": "too much"}]}
    assert error_words({"data": {"error": schema}}) == ("Bad Request\n$limit too much", False)
    assert error_words({}) == ("", False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"), errors.CertificateRejected),
        (requests.exceptions.SSLError("Fingerprints did not match"), errors.CertificateRejected),
        (requests.exceptions.SSLError("EOF occurred in violation of protocol"), errors.Unreachable),
        (requests.exceptions.ConnectTimeout("geheim"), errors.Unreachable),
        (requests.exceptions.ConnectionError("Connection refused"), errors.Unreachable),
    ],
)
def test_what_breaks_on_the_line_is_told_without_secrets(
    error: requests.RequestException, kind: type[errors.ConnectorError]
) -> None:
    told = faults.of_the_line(error, "listing machines", "prism:9440", ("geheim",))
    assert type(told) is kind
    assert "geheim" not in f"{told} {told.platform_words}"
