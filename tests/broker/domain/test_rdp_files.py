"""What stands in an `.rdp` file, and what of it a signature covers."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain import native, rdp_files
from broker.domain.applications import Program
from broker.domain.rdp_files import Wish

WISH = Wish("desk.example:3390", "a-ticket", "alice", has_clipboard=True, asks_32_bpp=True)
LINES = (
    "full address:s:desk.example:3390",
    "alternate full address:s:desk.example:3390",
    "loadbalanceinfo:s:Cookie: msts=a-ticket",
    "username:s:alice",
    "authentication level:i:2",
    "enablecredsspsupport:i:1",
    "negotiate security layer:i:1",
    "prompt for credentials:i:0",
    "autoreconnection enabled:i:1",
    "screen mode id:i:2",
    "use multimon:i:0",
    "dynamic resolution:i:1",
    "session bpp:i:32",
    "redirectclipboard:i:1",
    "redirectdrives:i:0",
    "redirectprinters:i:0",
    "redirectcomports:i:0",
    "redirectsmartcards:i:0",
    "drivestoredirect:s:",
    "devicestoredirect:s:",
    "usbdevicestoredirect:s:",
    "audiomode:i:0",
    "audiocapturemode:i:0",
)
SCOPE = (
    "signscope:s:Full Address,Alternate Full Address,Negotiate Security Layer,EnableCredSspSupport,"
    "AutoReconnection Enabled,Prompt For Credentials,Authentication Level,AudioMode,RedirectDrives,RedirectPrinters,"
    "RedirectCOMPorts,RedirectSmartCards,RedirectClipboard,DevicesToRedirect,DrivesToRedirect,LoadBalanceInfo"
)


def test_the_keys_of_a_file_are_these_and_no_other() -> None:
    assert rdp_files.settings(WISH) == LINES


def test_a_pool_without_clipboard_and_full_colour_says_so() -> None:
    lines = rdp_files.settings(Wish("a:1", "t", "u", has_clipboard=False, asks_32_bpp=False))
    assert "redirectclipboard:i:0" in lines
    assert not [line for line in lines if line.startswith("session bpp")]


def test_one_program_is_started_first_on_linux_and_is_a_remote_app_on_windows() -> None:
    linux, windows = Program("Writer", "writer", "-n", "/tmp"), Program("Word", "||word", "/n", "", True)
    added = [line for line in rdp_files.settings(replace(WISH, program=linux)) if line not in LINES]
    assert added == ["alternate shell:s:writer -n", "shell working directory:s:/tmp"]
    lines = rdp_files.settings(replace(WISH, program=windows))
    assert [line for line in lines if line not in LINES] == [
        "remoteapplicationmode:i:1", "remoteapplicationprogram:s:||word", "remoteapplicationname:s:Word",
        "remoteapplicationcmdline:s:/n", "alternate shell:s:rdpinit.exe", "disableremoteappcapscheck:i:1",
    ]  # fmt: skip
    scope, _ = rdp_files.signed_part(lines)
    assert "Alternate Shell,RemoteApplicationProgram,RemoteApplicationMode" in scope


def test_a_signature_covers_where_it_leads_the_ticket_and_what_is_shared() -> None:
    scope, covered = rdp_files.signed_part(LINES)
    assert scope == SCOPE
    text = covered.decode("utf-16-le")
    assert text.endswith(f"\r\n{SCOPE}\r\n\0")
    assert text.split("\r\n")[:4] == [LINES[0], LINES[1], LINES[6], LINES[5]]
    assert text.count("\r\n") == SCOPE.count(",") + 2


def test_a_signature_is_preceded_by_its_head_and_length() -> None:
    line = rdp_files.signature_line(b"\x30\x00")
    assert (
        base64.b64decode(line.removeprefix("signature:s:")) == bytes.fromhex("010001000100000002000000") + b"\x30\x00"
    )


def test_a_file_is_utf_16_with_a_mark_and_lines_of_windows() -> None:
    assert rdp_files.content(["a:s:ä", "b:i:1"]) == b"\xff\xfe" + "a:s:ä\r\nb:i:1\r\n".encode("utf-16-le")


@given(st.text(alphabet=st.characters(codec="utf-8")), st.sampled_from(["address", "ticket", "user"]))
def test_no_value_begins_a_line_of_its_own(value: str, field: str) -> None:
    values: dict[str, Any] = {field: value}
    wish = replace(WISH, **values)
    if {"\r", "\n", "\0"} & set(value):
        with pytest.raises(ValueError):
            rdp_files.settings(wish)
        return
    lines = rdp_files.content(rdp_files.settings(wish)).decode("utf-16").split("\r\n")
    assert len(lines) == len(LINES) + 1


@pytest.mark.parametrize(
    ("is_allowed", "protocol", "account", "has_door", "kind"),
    [
        (True, "rdp", "ask", True, "rdp"),
        (True, "vnc", "pool", True, "vv"),
        (False, "rdp", "ask", True, ""),
        (False, "vnc", "ask", True, ""),
        (True, "vnc", "ask", False, ""),
        (True, "rdp", "pool", True, ""),
        (True, "rdp", "ask", False, ""),
    ],
)
def test_a_file_is_offered_only_where_all_is_there_for_it(
    is_allowed: bool, protocol: str, account: str, has_door: bool, kind: str
) -> None:
    found = native.file_kind(
        is_allowed=is_allowed,
        protocol=protocol,
        guest_account=account,
        has_rdp_door=has_door,
        has_vnc_door=has_door,
    )
    assert found == kind
