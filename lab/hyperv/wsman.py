"""WS-Management envelopes: what a request asks, and how an answer or a fault is written ([MS-WSMV] 3.1.4)."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from uuid import uuid4
from xml.sax.saxutils import escape, quoteattr

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
NAMESPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "rsp": SHELL,
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
}
_DECLARED = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
_PIECE = 32_768
"""Bytes a Stream element holds at most."""

TIMED_OUT = 2150858793
NO_SHELL = 2150858843
TOO_MANY_SHELLS = 2150859173
TOO_MANY_OPERATIONS = 2150859174
BAD_REQUEST = 2150858999


class WsmanFault(Exception):
    """Answered as a SOAP fault with that code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class Asked:
    action: str
    """Its last word: Create, Command, Send, Receive, Signal, Delete."""
    message_id: str
    shell: str
    timeout_s: float
    envelope_size: int
    options: dict[str, str]
    body: ET.Element | None
    shell_id_wanted: str = ""
    command: str = ""
    """Id of the command that is meant, upper case."""
    command_line: str = ""
    stdin: list[bytes] = field(default_factory=list)
    is_end: bool = False


def read(text: bytes) -> Asked:
    """Raises `WsmanFault` for what is no request."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - only this machine can reach the lab
    except ET.ParseError as error:
        raise WsmanFault(BAD_REQUEST, "The request is not well-formed XML.") from error
    action = root.findtext("s:Header/a:Action", "", NAMESPACES).strip()
    body = root.find("s:Body", NAMESPACES)
    asked = Asked(
        action=action.rpartition("/")[2],
        message_id=root.findtext("s:Header/a:MessageID", "", NAMESPACES).strip(),
        shell=root.findtext("s:Header/w:SelectorSet/w:Selector", "", NAMESPACES).strip().upper(),
        timeout_s=_seconds(root.findtext("s:Header/w:OperationTimeout", "", NAMESPACES)),
        envelope_size=int(root.findtext("s:Header/w:MaxEnvelopeSize", "153600", NAMESPACES)),
        options={
            it.get("Name", ""): (it.text or "").strip()
            for it in root.findall("s:Header/w:OptionSet/w:Option", NAMESPACES)
        },
        body=body,
    )
    if body is not None:
        _read_body(asked, body)
    return asked


def _read_body(asked: Asked, body: ET.Element) -> None:
    shell = body.find("rsp:Shell", NAMESPACES)
    if shell is not None:
        asked.shell_id_wanted = shell.get("ShellId", "").upper()
    line = body.find("rsp:CommandLine", NAMESPACES)
    if line is not None:
        asked.command = line.get("CommandId", "").upper()
        arguments = [it.text or "" for it in line.findall("rsp:Arguments", NAMESPACES)]
        asked.command_line = " ".join([line.findtext("rsp:Command", "", NAMESPACES), *arguments])
    for stream in body.findall("rsp:Send/rsp:Stream", NAMESPACES):
        asked.command = stream.get("CommandId", "").upper()
        asked.stdin.append(base64.b64decode(stream.text or ""))
        asked.is_end = asked.is_end or stream.get("End", "").lower() in ("true", "1")
    for name in ("rsp:Receive/rsp:DesiredStream", "rsp:Signal"):
        found = body.find(name, NAMESPACES)
        if found is not None:
            asked.command = found.get("CommandId", "").upper()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"PT(?:(\d+)M)?(?:([\d.]+)S)?", text.strip())
    return 60.0 * int(found[1] or 0) + float(found[2] or 0) if found else 60.0


# --- answers ---------------------------------------------------------------------------------------------------------


def envelope(asked: Asked | None, action: str, body: str) -> bytes:
    relates = f"<a:RelatesTo>{escape(asked.message_id)}</a:RelatesTo>" if asked else ""
    text = (
        f'<s:Envelope xml:lang="en-US" {_DECLARED}><s:Header><a:Action>{escape(action)}</a:Action>'
        f"<a:MessageID>uuid:{str(uuid4()).upper()}</a:MessageID>{relates}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
    return text.encode()


def fault(asked: Asked | None, problem: WsmanFault) -> bytes:
    sub = "w:TimedOut" if problem.code == TIMED_OUT else "w:QuotaLimit" if problem.code >= 2150859173 else "w:Fault"
    reason = escape(problem.reason)
    body = (
        f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>{sub}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason><s:Detail><f:WSManFault Code="{problem.code}" '
        f'Machine="lab"><f:Message>{reason}</f:Message></f:WSManFault></s:Detail></s:Fault>'
    )
    return envelope(asked, "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", body)


def created(asked: Asked, shell: str) -> bytes:
    uri = f"{SHELL}/cmd"
    body = (
        f"<x:ResourceCreated><a:Address>http://lab/wsman</a:Address><a:ReferenceParameters><w:ResourceURI>{uri}"
        f'</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet>'
        f"</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId></rsp:Shell>"
    )
    return envelope(asked, "http://schemas.xmlsoap.org/ws/2004/09/transfer/CreateResponse", body)


def commanded(asked: Asked, command: str) -> bytes:
    body = f"<rsp:CommandResponse><rsp:CommandId>{command}</rsp:CommandId></rsp:CommandResponse>"
    return envelope(asked, f"{SHELL}/CommandResponse", body)


def empty(asked: Asked) -> bytes:
    inner = {"Send": "<rsp:SendResponse/>", "Signal": "<rsp:SignalResponse/>"}.get(asked.action, "")
    return envelope(asked, f"{SHELL}/{asked.action}Response", inner)


def received(asked: Asked, command: str, streams: list[tuple[str, bytes]], code: int | None) -> bytes:
    """What came out, in pieces; with a code the command is over."""
    parts = []
    for name, data in streams:
        for start in range(0, len(data), _PIECE):
            piece = base64.b64encode(data[start : start + _PIECE]).decode()
            parts.append(f"<rsp:Stream Name={quoteattr(name)} CommandId={quoteattr(command)}>{piece}</rsp:Stream>")
    if code is None:
        parts.append(f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/Running"/>')
    else:
        for name in ("stdout", "stderr"):
            parts.append(f'<rsp:Stream Name="{name}" CommandId="{command}" End="true"/>')
        parts.append(
            f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/Done">'
            f"<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
        )
    return envelope(asked, f"{SHELL}/ReceiveResponse", f"<rsp:ReceiveResponse>{''.join(parts)}</rsp:ReceiveResponse>")


def budget(asked: Asked) -> int:
    """Bytes of output that fit into one answer: base64 takes a third more."""
    return max(1024, (asked.envelope_size - 4096) * 3 // 4)
