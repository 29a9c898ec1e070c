"""Guests as an independent witness sees them: through libvirt and the guest agent, never through the broker."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any
from xml.sax.saxutils import escape

import libvirt
import libvirt_qemu
from lxml import etree

AGENT_LIMIT_S = 120
"""Under emulation on a busy machine a tiny guest needs up to 20 s, one of twenty up to 120 s."""
ANSWER_S = 10
"""How long one question may stay without an answer. A server that is still booting may be slower than that, and its
system may start its agent once more meanwhile: such a question is asked again."""


def clone_tiny(
    conn: libvirt.virConnect, name: str, *, template: str = "tiny", listen: str = "127.0.0.1", more_devices: str = ""
) -> Any:
    """A started linked clone of the tiny template, made without the broker. Its disk is the volume `NAME.qcow2`.

    `more_devices` is XML of further devices.
    """
    original = conn.lookupByName(template)
    definition = etree.fromstring(original.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    source = _child(definition, "devices/disk/source")
    golden = conn.storageVolLookupByPath(source.get("file"))
    pool = golden.storagePoolLookupByVolume()
    overlay = pool.createXML(
        f"<volume><name>{escape(name)}.qcow2</name><capacity unit='bytes'>{golden.info()[1]}</capacity>"
        "<target><format type='qcow2'/><compat>1.1</compat></target>"
        f"<backingStore><path>{escape(golden.path())}</path><format type='qcow2'/></backingStore></volume>"
    )
    source.set("file", overlay.path())
    _child(definition, "name").text = name
    _child(definition, "devices/graphics").set("listen", listen)
    _child(definition, "devices/graphics/listen").set("address", listen)
    for path in ("uuid", "devices/interface/mac"):
        element = _child(definition, path)
        parent = element.getparent()
        assert parent is not None
        parent.remove(element)
    for device in etree.fromstring(f"<devices>{more_devices}</devices>"):
        _child(definition, "devices").append(device)
    domain = conn.defineXML(etree.tostring(definition, encoding="unicode"))
    domain.create()
    return domain


def remove_clone(domain: Any) -> None:
    """The machine and its disk are gone."""
    disk = "devices/disk/target[@dev='vda']/../source"
    source = _child(etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)), disk)
    if domain.isActive():
        domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    domain.connect().storageVolLookupByPath(source.get("file")).delete()


def wait_for_agent(domain: Any, limit_s: float = AGENT_LIMIT_S) -> None:
    """Returns once the guest agent answers; TimeoutError after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            _ask(domain, "guest-ping")
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The agent of {domain.name()} is silent: {error}") from error
            time.sleep(0.2)
        else:
            return


def run_in_guest(domain: Any, *command: str, limit_s: float = 60) -> str:
    """Standard output of a command that the agent runs. Raises AssertionError with its words when it fails.

    An agent that falls silent is asked again until `limit_s` is over, so the command may run twice.
    """
    deadline = time.monotonic() + limit_s
    while (status := _ran(domain, command, deadline)) is None:
        time.sleep(0.2)
    said = base64.b64decode(status.get("err-data", "")).decode()
    assert status["exitcode"] == 0, f"{command} in {domain.name()} ended with {status['exitcode']}: {said}"
    return base64.b64decode(status.get("out-data", "")).decode()


def _ran(domain: Any, command: tuple[str, ...], deadline: float) -> Any:
    """The agent's word on a command that ended; None if the agent fell silent before, as long as there is time left."""
    start = {"path": command[0], "arg": list(command[1:]), "capture-output": True, "env": ["HOME=/mnt"]}
    try:
        started = _ask(domain, "guest-exec", start)
        while not (status := _ask(domain, "guest-exec-status", {"pid": started["pid"]}))["exited"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command} does not end in {domain.name()}")
            time.sleep(0.1)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_AGENT_UNRESPONSIVE or time.monotonic() > deadline:
            raise
        return None
    return status


def utmp_record(name: str) -> bytes:
    """That somebody is logged on, as one of glibc's utmp on x86-64 (utmp(5)), in which the agent looks."""
    user_process = 7
    return struct.pack("<hxxi32s4s32s256shhiii4i20x", user_process, 100, b"tty1", b"1", name.encode(), b"", 0, 0, 0,
                       1_780_000_000, 0, 0, 0, 0, 0)  # fmt: skip


def log_on(domain: Any, *names: str) -> None:
    """The guest's own list of who is logged on says so; without names, that nobody is."""
    text = base64.b64encode(b"".join(map(utmp_record, names))).decode()
    run_in_guest(domain, "/bin/sh", "-c", "mkdir -p /run /var/run; echo $0 | base64 -d > /var/run/utmp", text)


def guest_file_exists(domain: Any, path: str) -> bool:
    return run_in_guest(domain, "/bin/sh", "-c", '[ -e "$0" ] && echo yes || echo no', path).strip() == "yes"


def screen_port(domain: Any) -> int:
    """The TCP port of the running guest's VNC server."""
    graphics = _child(etree.fromstring(domain.XMLDesc()), "devices/graphics[@type='vnc']")
    return int(graphics.get("port", "-1"))


def screenshot(domain: Any) -> bytes:
    """What libvirt itself sees on the guest's screen, as PNG."""
    stream = domain.connect().newStream()
    domain.screenshot(stream, 0)
    picture = bytearray()
    stream.recvAll(lambda _stream, data, _opaque: picture.extend(data), None)
    stream.finish()
    return bytes(picture)


def _ask(domain: Any, command: str, arguments: dict[str, object] | None = None) -> Any:
    question = json.dumps({"execute": command, "arguments": arguments or {}})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, question, ANSWER_S, 0))["return"]


def _child(element: etree._Element, path: str) -> etree._Element:
    found = element.find(path)
    assert found is not None, f"no {path} in the definition"
    return found
