"""libvirt's errors in our words."""

from __future__ import annotations

import errno

import libvirt
import pytest

from connectors import errors
from connectors.kvm import faults


def error(code: int, words: str = "", domain: int = libvirt.VIR_FROM_QEMU, number: int = 0) -> libvirt.libvirtError:
    made = libvirt.libvirtError(words)
    made.args = (words,)  # libvirt's own words win where this thread has met an error before
    made.err = (code, domain, words, 2, None, None, None, number, -1)
    return made


LINE, QEMU, STORAGE = libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_QEMU, libvirt.VIR_FROM_STORAGE


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (error(libvirt.VIR_ERR_NO_DOMAIN, "Domain not found"), errors.NotFound),
        (error(libvirt.VIR_ERR_NO_STORAGE_VOL, "no storage vol with matching path"), errors.NotFound),
        (error(libvirt.VIR_ERR_OPERATION_FAILED, "domain 'a' already exists with uuid 1"), errors.Conflict),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running"), errors.Conflict),
        (error(libvirt.VIR_ERR_STORAGE_VOL_EXIST, "exists already"), errors.Conflict),
        (error(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock"), errors.Busy),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "pool 'x' has asynchronous jobs running.", STORAGE), errors.Busy),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, "volume 'x' is still in use.", STORAGE), errors.Busy),
        (error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding"), errors.Busy),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, "cannot write", STORAGE, errno.ENOSPC), errors.CapacityExhausted),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "qemu-img: No space left on device", STORAGE), errors.CapacityExhausted),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "cannot set up guest memory 'ram'"), errors.CapacityExhausted),
        (error(libvirt.VIR_ERR_AUTH_FAILED, "authentication failed", LINE), errors.CredentialsRejected),
        (
            error(libvirt.VIR_ERR_SYSTEM_ERROR, "The certificate hasn't got a known issuer", LINE),
            errors.CertificateRejected,
        ),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect socket to '/x'", LINE), errors.Unreachable),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", LINE), errors.Unreachable),
        (
            error(libvirt.VIR_ERR_AUTH_FAILED, "The TLS connection was non-properly terminated.", LINE),
            errors.Unreachable,
        ),
        (error(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported"), errors.Unsupported),
        (error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration"), errors.Unsupported),
        (error(libvirt.VIR_ERR_ACCESS_DENIED, "access denied"), errors.Unsupported),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "End of file from agent socket"), errors.PlatformFault),
        (
            error(libvirt.VIR_ERR_INTERNAL_ERROR, "Unable to read from monitor: Connection reset by peer"),
            errors.PlatformFault,
        ),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "qemu: could not load certificate for VNC"), errors.PlatformFault),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_an_error_is_what_the_broker_does_next(given: libvirt.libvirtError, expected: type[Exception]) -> None:
    assert faults.kind_of(given) is expected


def test_every_kind_of_error_has_advice() -> None:
    kinds = {kind for table in (faults.LINE_WORDS, faults.WORDS) for _, kind in table} | set(faults.BY_CODE.values())
    assert kinds | {errors.PlatformFault} == set(faults.ADVICE)


def test_the_platforms_own_words_are_kept_apart_from_the_message() -> None:
    told = faults.ours(error(libvirt.VIR_ERR_INTERNAL_ERROR, "qemu said something odd"), "creating the disk", "kvm-a")
    assert told.message.startswith("kvm-a: creating the disk failed.")
    assert "odd" not in told.message
    assert told.platform_words == "qemu said something odd"
