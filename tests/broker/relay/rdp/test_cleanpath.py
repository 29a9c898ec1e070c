from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.rdp import cleanpath, der, x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.x224 import Security

X224 = x224.request(Security.TLS | Security.NLA)


def request(**changed: bytes | None) -> bytes:
    """As the browser sends it."""
    parts: dict[str, tuple[int, bytes]] = {
        "version": (0, der.integer(cleanpath.VERSION)),
        "destination": (2, der.encode(der.UTF8_STRING, b"10.0.0.1:22")),
        "ticket": (3, der.encode(der.UTF8_STRING, b"secret-ticket")),
        "x224": (6, der.encode(der.OCTET_STRING, X224)),
    }
    for name, content in changed.items():
        if content is None:
            del parts[name]
        else:
            parts[name] = (parts[name][0], content)
    return der.encode(der.SEQUENCE, b"".join(der.encode(der.context(tag), content) for tag, content in parts.values()))


def test_a_request_gives_ticket_and_x224_message_and_hides_the_ticket_in_logs() -> None:
    found = cleanpath.read_request(request())
    assert (found.ticket, found.x224) == ("secret-ticket", X224)
    assert "secret-ticket" not in repr(found)


def test_its_length_is_known_from_the_first_bytes_on() -> None:
    whole = request()
    assert [cleanpath.length_of(whole[:n]) for n in (0, 1)] == [None, None]
    assert cleanpath.length_of(whole[:4]) == len(whole)


@pytest.mark.parametrize("head", [b"\x30\x83\x10\x00\x00", b"GET / HTTP/1.1"])
def test_what_is_too_long_or_something_else_is_refused_at_once(head: bytes) -> None:
    with pytest.raises(Malformed):
        cleanpath.length_of(head)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": der.integer(3389)},
        {"ticket": None},
        {"x224": None},
        {"ticket": der.encode(der.UTF8_STRING, b"\xff\xfe")},
        {"x224": der.encode(der.UTF8_STRING, b"text")},
    ],
)
def test_a_request_that_lacks_something_or_has_it_wrong_is_refused(changed: dict[str, bytes | None]) -> None:
    with pytest.raises(Malformed):
        cleanpath.read_request(request(**changed))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_stumble(data: bytes) -> None:
    try:
        cleanpath.length_of(data)
        cleanpath.read_request(data)
    except Malformed:
        return


@given(st.data())
def test_a_request_with_one_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(request())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        cleanpath.read_request(bytes(whole))
    except Malformed:
        return


def test_a_response_bears_x224_certificates_and_address() -> None:
    found = der.fields(cleanpath.response(x224=b"cc", certificates=[b"leaf", b"issuer"], address="10.1.2.3"))
    assert der.number(found[0]) == 3390
    assert der.only(found[6], der.OCTET_STRING) == b"cc"
    assert [content for _, content in der.elements(der.only(found[7], der.SEQUENCE))] == [b"leaf", b"issuer"]
    assert der.text(found[9]) == "10.1.2.3"


def test_a_refusal_bears_its_numbers_and_where_the_guest_refused_its_answer() -> None:
    error = der.fields(der.fields(cleanpath.refusal(cleanpath.GENERAL, http_status=502, socket_error=10061))[1])
    assert {tag: der.number(value) for tag, value in error.items()} == {0: 1, 1: 502, 2: 10061}
    assert der.only(der.fields(cleanpath.refusal(cleanpath.NEGOTIATION, x224=b"cc"))[6], der.OCTET_STRING) == b"cc"
