"""Requests and answers as text."""

from __future__ import annotations

import pytest

from connectors.esxi import soap

HEAD = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
TAIL = "</soapenv:Body></soapenv:Envelope>"


def answer(inner: str) -> soap.Element:
    return soap.parse(f'{HEAD}<R xmlns="urn:vim25"><returnval>{inner}</returnval></R>{TAIL}'.encode())


def test_a_page_holds_values_gaps_and_the_token_of_the_next() -> None:
    found, token = soap.page(
        answer(
            '<token>t1</token><objects><obj type="VirtualMachine">vm-1</obj>'
            "<propSet><name>name</name><val>desk</val></propSet>"
            "<propSet><name>summary.config.numCpu</name><val>4</val></propSet>"
            '<missingSet><path>config.template</path><fault><fault xsi:type="NoPermission"/></fault></missingSet>'
            "</objects>"
        )
    )
    assert token == "t1"
    (seen,) = found
    assert (seen.kind, seen.id, seen.text("name"), seen.number("summary.config.numCpu")) == (
        "VirtualMachine", "vm-1", "desk", 4,
    )  # fmt: skip
    assert seen.missing == {"config.template": "NoPermission"}
    assert (seen.text("nothing"), seen.number("nothing")) == ("", 0)


def test_a_type_that_nobody_knows_spoils_nothing() -> None:
    """pyvmomi fails a whole page over one (vmware/pyvmomi #872, #1016), and over an empty enum value."""
    found, _ = soap.page(
        answer(
            '<objects><obj type="ContentLibraryItem">x-1</obj><propSet><name>a</name>'
            '<val xsi:type="InventedIn2031">?</val></propSet></objects>'
            '<objects><obj type="VirtualMachine">vm-2</obj><propSet><name>runtime</name>'
            "<val><faultToleranceState></faultToleranceState></val></propSet></objects>"
        )
    )
    assert [seen.id for seen in found] == ["x-1", "vm-2"]


def test_updates_tell_kind_values_version_and_whether_there_is_more() -> None:
    version, updates, is_more = soap.updates(
        answer(
            "<version>7</version><filterSet><filter>f</filter><objectSet><kind>modify</kind>"
            '<obj type="VirtualMachine">vm-1</obj><changeSet><name>name</name><op>assign</op><val>x</val></changeSet>'
            '</objectSet><objectSet><kind>leave</kind><obj type="VirtualMachine">vm-2</obj></objectSet></filterSet>'
            "<truncated>true</truncated>"
        )
    )
    assert (version, is_more) == ("7", True)
    assert [(update.kind, update.seen.id) for update in updates] == [("modify", "vm-1"), ("leave", "vm-2")]
    assert updates[0].seen.text("name") == "x"


def test_no_change_is_no_version() -> None:
    body = soap.parse(f'{HEAD}<WaitForUpdatesExResponse xmlns="urn:vim25"/>{TAIL}'.encode())
    assert soap.updates(body) == ("", [], False)


def test_an_answer_that_is_none_is_refused() -> None:
    for text in (b"", b"<html>", b"not xml", b"<a/>", HEAD.encode() + TAIL.encode()):
        with pytest.raises(soap.Unreadable):
            soap.parse(text)


def test_a_hostile_answer_expands_nothing_and_reads_no_file() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY f SYSTEM "file:///etc/hostname">]>'
    body = soap.parse(f'{bomb}{HEAD}<R xmlns="urn:vim25"><returnval>&b;&f;</returnval></R>{TAIL}'.encode())
    found = soap.returned(body)
    assert found is not None
    assert not found.text


def test_what_is_written_is_escaped() -> None:
    body = soap.request("Login", ("SessionManager", "s&m"), soap.element("password", "<&>")).decode()
    assert "<password>&lt;&amp;&gt;</password>" in body
    assert ">s&amp;m<" in body


def test_references_are_read_one_by_one_or_as_an_array() -> None:
    inner = answer(
        "<objects><obj>x</obj><propSet><name>one</name><val>ds-1</val></propSet><propSet><name>two</name><val>"
        "<ManagedObjectReference>ds-1</ManagedObjectReference><ManagedObjectReference>ds-2</ManagedObjectReference>"
        "</val></propSet></objects>"
    )
    (seen,) = soap.page(inner)[0]
    assert soap.references(seen.values["one"]) == ["ds-1"]
    assert soap.references(seen.values["two"]) == ["ds-1", "ds-2"]
    assert soap.references(None) == []
