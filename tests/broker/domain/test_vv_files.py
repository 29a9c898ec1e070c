"""What stands in a `.vv` file."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain import vv_files
from broker.domain.vv_files import Wish


def test_the_keys_of_a_file_are_these_and_no_other() -> None:
    assert vv_files.content(Wish("desk.example", 5900, "a-ticket", "alice", "Office (office-001)")) == (
        b"[virt-viewer]\ntype=vnc\nhost=desk.example\nport=5900\nusername=alice\npassword=a-ticket\n"
        b"title=Office (office-001)\ndelete-this-file=1\n"
    )


def test_what_means_something_in_such_a_file_is_escaped() -> None:
    content = vv_files.content(Wish("h", 1, "t", "CORP\\alice", " Office")).decode()
    assert "username=CORP\\\\alice\n" in content
    assert "title=\\sOffice\n" in content


@given(st.text(alphabet=st.characters(codec="utf-8")), st.sampled_from(["host", "ticket", "user", "title"]))
def test_no_value_begins_a_line_of_its_own(value: str, field: str) -> None:
    wish = Wish(**({"host": "h", "port": 1, "ticket": "t", "user": "u", "title": "o"} | {field: value}))  # type: ignore[arg-type]
    if {"\r", "\n", "\0"} & set(value):
        with pytest.raises(ValueError):
            vv_files.content(wish)
        return
    read = configparser.RawConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",))
    read.read_file(vv_files.content(wish).decode().split("\n"))
    assert len(read["virt-viewer"]) == 7
