"""SOAP 1.1 of the vSphere Web Services API as text: requests that we write ourselves, answers read by lxml. Pure.

Everything is *read* this way, from leaf properties: pyvmomi's parser costs some 17 times the processor time of lxml's,
and it fails a whole page over one type or enum value that it does not know. pyvmomi's types only write requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

NAMESPACE = "urn:vim25"
VERSION = "6.5"
"""The API version that is spoken: newer servers answer in it, without types it does not have."""
ACTION = f'"urn:vim25/{VERSION}"'

_OPEN = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>"
)
_CLOSE = "</soapenv:Body></soapenv:Envelope>"
_V = f"{{{NAMESPACE}}}"
TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

Element = etree._Element


class Unreadable(ValueError):
    """The answer is not what the API describes."""


@dataclass(slots=True)
class Seen:
    """What a server told of one object: its properties by path, and why others are missing."""

    kind: str
    id: str
    values: dict[str, Element] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Path -> name of the fault."""

    def text(self, path: str, default: str = "") -> str:
        found = self.values.get(path)
        return default if found is None else (found.text or default)

    def number(self, path: str) -> int:
        text = self.text(path)
        return int(text) if text.lstrip("-").isdigit() else 0


# --- requests --------------------------------------------------------------------------------------------------------


def request(method: str, this: tuple[str, str], inner: str = "") -> bytes:
    kind, id = this
    body = f"<{method} xmlns={quoteattr(NAMESPACE)}>{_reference('_this', kind, id)}{inner}</{method}>"
    return f"{_OPEN}{body}{_CLOSE}".encode()


def element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _reference(name: str, kind: str, id: str) -> str:
    return f"<{name} type={quoteattr(kind)}>{escape(id)}</{name}>"


def property_spec(kind: str, paths: Iterable[str]) -> str:
    listed = "".join(element("pathSet", path) for path in paths)
    return f"<propSet>{element('type', kind)}{listed}</propSet>"


def filter_spec(
    wanted: Sequence[tuple[str, Iterable[str]]], *, view: str = "", objects: Iterable[tuple[str, str]] = ()
) -> str:
    """The inside of a PropertyFilterSpec: these properties of all in the view, or of the objects named."""
    props = "".join(property_spec(kind, paths) for kind, paths in wanted)
    if view:
        return (
            f"{props}<objectSet>{_reference('obj', 'ContainerView', view)}<skip>true</skip>"
            '<selectSet xsi:type="TraversalSpec"><name>view</name><type>ContainerView</type><path>view</path>'
            "<skip>false</skip></selectSet></objectSet>"
        )
    return props + "".join(f"<objectSet>{_reference('obj', kind, id)}</objectSet>" for kind, id in objects)


def retrieve(collector: str, spec: str, page: int) -> bytes:
    options = f"<options><maxObjects>{page}</maxObjects></options>" if page else "<options/>"
    return request("RetrievePropertiesEx", ("PropertyCollector", collector), f"<specSet>{spec}</specSet>{options}")


def go_on(collector: str, token: str) -> bytes:
    return request("ContinueRetrievePropertiesEx", ("PropertyCollector", collector), element("token", token))


def wait(collector: str, version: str, page: int) -> bytes:
    options = f"<options><maxWaitSeconds>0</maxWaitSeconds><maxObjectUpdates>{page}</maxObjectUpdates></options>"
    return request("WaitForUpdatesEx", ("PropertyCollector", collector), element("version", version) + options)


# --- answers ---------------------------------------------------------------------------------------------------------


def parse(answer: bytes) -> Element:
    """The element inside the SOAP body. Hostile answers expand nothing and fetch nothing. Raises `Unreadable`."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, remove_comments=True)
    try:
        envelope = etree.fromstring(answer, parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable(str(error)) from None
    for body in envelope:
        if isinstance(body.tag, str) and body.tag.endswith("}Body") and len(body):
            return body[0]
    raise Unreadable("the answer has no SOAP body")


def local(node: Element) -> str:
    """The name of an element without its namespace."""
    return str(node.tag).rpartition("}")[2]


def child(node: Element | None, *names: str) -> Element | None:
    for name in names:
        if node is None:
            return None
        node = node.find(_V + name)
    return node


def children(node: Element | None, name: str) -> list[Element]:
    return [] if node is None else node.findall(_V + name)


def text(node: Element | None, *names: str) -> str:
    found = child(node, *names)
    return "" if found is None else (found.text or "")


def kind_of(node: Element | None) -> str:
    """The xsi:type of an element without its prefix."""
    return "" if node is None else (node.get(TYPE) or "").rpartition(":")[2]


def returned(answer: Element) -> Element | None:
    """`returnval` of an answer."""
    return child(answer, "returnval")


def references(node: Element | None) -> list[str]:
    """Ids in a property that is one reference or an array of them."""
    if node is None:
        return []
    listed = children(node, "ManagedObjectReference")
    return [one.text or "" for one in listed] if listed else [node.text] if node.text and node.text.strip() else []


_OBJECTS, _OBJ, _PROP_SET, _MISSING_SET = _V + "objects", _V + "obj", _V + "propSet", _V + "missingSet"


def page(answer: Element) -> tuple[list[Seen], str]:
    """The objects of an answer to RetrievePropertiesEx or its continuation, and the token of the next page or ""."""
    result = returned(answer)
    if result is None:
        return [], ""
    found = []
    for node in result.iterchildren(_OBJECTS):
        seen: Seen | None = None
        for part in node:
            tag = part.tag
            if tag == _PROP_SET and seen is not None:
                seen.values[part[0].text or ""] = part[1]
            elif tag == _OBJ:
                seen = Seen(part.get("type") or "", part.text or "")
                found.append(seen)
            elif tag == _MISSING_SET and seen is not None:
                seen.missing[text(part, "path")] = kind_of(child(part, "fault", "fault"))
    return found, text(result, "token")


@dataclass(slots=True)
class Update:
    """What a waiting collector told of one object."""

    kind: str
    """"enter", "modify" or "leave"."""
    seen: Seen


def updates(answer: Element) -> tuple[str, list[Update], bool]:
    """Version, changes, and whether there is more at once, of an answer to WaitForUpdatesEx. No change: version ""."""
    result = returned(answer)
    if result is None:
        return "", [], False
    found = []
    for part in children(result, "filterSet"):
        for node in children(part, "objectSet"):
            obj = child(node, "obj")
            if obj is None:
                continue
            seen = Seen(obj.get("type") or "", obj.text or "")
            for change in children(node, "changeSet"):
                value = child(change, "val")
                if value is not None:
                    seen.values[text(change, "name")] = value
            for gap in children(node, "missingSet"):
                seen.missing[text(gap, "path")] = kind_of(child(gap, "fault", "fault"))
            found.append(Update(text(node, "kind"), seen))
    return text(result, "version"), found, text(result, "truncated") == "true"


def property_values(node: Element) -> Iterator[tuple[str, Element]]:
    """Name and value of the children of a data object."""
    for part in node:
        if isinstance(part.tag, str):
            yield local(part), part
