"""vSphere's faults in our words."""

from __future__ import annotations

import pytest

from connectors import errors
from connectors.esxi import faults, soap
from connectors.esxi.faults import VimFault


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("InvalidLogin", errors.CredentialsRejected),
        ("PasswordExpired", errors.CredentialsRejected),
        ("NotAuthenticated", errors.CredentialsRejected),
        ("NoPermission", errors.Unsupported),
        ("NotEnoughLicenses", errors.Unsupported),
        ("ManagedObjectNotFound", errors.NotFound),
        ("FileNotFound", errors.NotFound),
        ("DuplicateName", errors.Conflict),
        ("InvalidPowerState", errors.Conflict),
        ("ConcurrentAccess", errors.Conflict),
        ("FileLocked", errors.Conflict),
        ("TaskInProgress", errors.Busy),
        ("ToolsUnavailable", errors.Busy),
        ("HostNotConnected", errors.Busy),
        ("Timedout", errors.Busy),
        ("NoDiskSpace", errors.CapacityExhausted),
        ("InsufficientMemoryResourcesFault", errors.CapacityExhausted),
        ("InsufficientCpuResourcesFault", errors.CapacityExhausted),
        ("InsufficientStorageSpace", errors.CapacityExhausted),
        ("NotSupported", errors.Unsupported),
        ("InvalidDeviceSpec", errors.Unsupported),
        ("MethodNotFound", errors.Unsupported),
        ("RequestCanceled", errors.PlatformFault),
        ("SystemError", errors.PlatformFault),
        ("InventedIn2031", errors.PlatformFault),
    ],
)
def test_a_fault_is_what_the_broker_does_next(name: str, expected: type[Exception]) -> None:
    assert faults.kind_of(VimFault(name)) is expected


def test_every_kind_of_error_has_advice() -> None:
    assert set(faults.BY_NAME.values()) | {errors.PlatformFault, errors.Unreachable} == set(faults.ADVICE)


def test_every_name_in_the_table_is_a_fault_of_vsphere() -> None:
    assert [name for name in faults.BY_NAME if len(faults.family(name)) == 1] == []


def test_the_platforms_own_words_are_kept_apart_from_the_message() -> None:
    told = faults.ours(VimFault("SystemError", "something odd"), "cloning the template", "vc-1")
    assert told.message.startswith("Cloning the template failed at vc-1.")
    assert "odd" not in told.message
    assert told.platform_words == "SystemError: something odd"


def test_a_missing_right_is_named() -> None:
    body = soap.parse(
        b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultstring>no</faultstring>'
        b'<detail><NoPermissionFault xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        b' xsi:type="NoPermission"><object type="Folder">group-d1</object>'
        b"<privilegeId>VirtualMachine.Interact.PowerOn</privilegeId></NoPermissionFault></detail></e:Fault></e:Body>"
        b"</e:Envelope>"
    )
    told = faults.ours(faults.of_answer(body), "switching on", "vc-1")
    assert "VirtualMachine.Interact.PowerOn" in told.message


def test_a_fault_without_detail_is_a_fault_all_the_same() -> None:
    body = soap.parse(
        b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultstring>odd</faultstring>'
        b"</e:Fault></e:Body></e:Envelope>"
    )
    assert faults.kind_of(faults.of_answer(body)) is errors.PlatformFault
