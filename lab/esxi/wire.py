"""SOAP 1.1 of the vSphere Web Services API, by VMware's own published types (pyvmomi): requests in, answers out."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import pyVmomi
from lxml import etree

_published: Any = pyVmomi
vim, vmodl = _published.vim, _published.vmodl
_support, _soap = _published.VmomiSupport, _published.SoapAdapter

NAMESPACE = "urn:vim25"
VERSION = "vim.version.version11"
"""vSphere 6.5, which every later server speaks too."""

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
    ' xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/"'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
_TAIL = "</soapenv:Body></soapenv:Envelope>"


class BadRequest(Exception):
    """Not what the API describes."""


class Call:
    """A method, what it is called on, and its arguments by name."""

    def __init__(self, method: str, this: Any, arguments: dict[str, Any], result: Any) -> None:
        self.method = method
        self.this = this
        self.arguments = arguments
        self.result = result

    @property
    def kind(self) -> str:
        return wsdl_name(type(self.this))

    @property
    def id(self) -> str:
        return str(self.this._moId)


def method_of(body: bytes) -> str:
    """The method that a request asks for, quickly; "" if it is no request."""
    at = body.find(b"Body>")
    start = body.find(b"<", at)
    name = body[start + 1 : start + 80].split(b" ")[0].split(b">")[0]
    return name.rpartition(b":")[2].decode("ascii", "replace") if at >= 0 else ""


def read(body: bytes) -> Call:
    """Raises `BadRequest`."""
    try:
        envelope = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True))
        asked = envelope.find("{http://schemas.xmlsoap.org/soap/envelope/}Body")[0]  # type: ignore[index]
    except (etree.XMLSyntaxError, TypeError, IndexError) as error:
        raise BadRequest(str(error)) from None
    method = etree.QName(asked).localname
    this = next((part for part in asked if etree.QName(part).localname == "_this"), None)
    if this is None:
        raise BadRequest("no _this")
    kind = _type(this.get("type") or "")
    info = _method(kind, method)
    if info is None:
        raise vmodl.fault.MethodNotFound(receiver=kind(this.text), method=method)
    arguments = {param.name: _argument(asked, param) for param in info.params}
    return Call(method, kind(this.text), arguments, info.result)


def _argument(asked: Any, param: Any) -> Any:
    parts = [part for part in asked if etree.QName(part).localname == param.name]
    if not parts:
        return None
    if issubclass(param.type, list):
        return [_value(part, param.type.Item) for part in parts]
    return _value(parts[0], param.type)


def _value(part: Any, kind: Any) -> Any:
    try:
        return _soap.Deserialize(io.BytesIO(etree.tostring(part)), kind)
    except Exception as error:  # noqa: BLE001 - whatever pyvmomi makes of what it does not know
        raise BadRequest(f"{etree.QName(part).localname}: {error}") from None


@cache
def _type(name: str) -> Any:
    try:
        return _support.GuessWsdlType(name)
    except KeyError:
        raise BadRequest(f"there is no type {name!r}") from None


@cache
def _method(kind: Any, wsdl: str) -> Any | None:
    for base in kind.__mro__:
        for name, info in getattr(base, "_methodInfo", {}).items():
            if name == wsdl or getattr(info, "wsdlName", "") == wsdl:
                return kind._GetMethodInfo(name)
    return None


def wsdl_name(kind: Any) -> str:
    return str(_support.GetWsdlName(kind))


def array(kind: str, items: Any) -> Any:
    """A typed array, such as "vim.Datastore"."""
    return _support.GetVmodlType(f"{kind}[]")(items)


def long(number: int) -> Any:
    return _support.long(number)


def property_type(kind: Any, name: str) -> Any:
    """Of a property of a managed object. Raises AttributeError."""
    return kind._GetPropertyInfo(name).type


# --- answers ---------------------------------------------------------------------------------------------------------


def answer(call: Call, result: Any) -> bytes:
    inner = ""
    if result is not None:
        info = _support.Object(name="returnval", type=call.result, version=VERSION, flags=0)
        inner = _soap.SerializeToStr(result, info, VERSION, _spaces())
    return f'{_HEAD}<{call.method}Response xmlns="{NAMESPACE}">{inner}</{call.method}Response>{_TAIL}'.encode()


def fault(error: Any, words: str) -> bytes:
    """A SOAP fault with a MethodFault in its detail."""
    name = wsdl_name(type(error))
    info = _support.Object(name=f"{name}Fault", type=object, version=VERSION, flags=0)
    detail = _soap.SerializeFaultDetail(error, info, VERSION, _spaces())
    detail = detail.replace(f"<{name}Fault ", f'<{name}Fault xmlns="{NAMESPACE}" ', 1)
    return (
        f"{_HEAD}<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{_escaped(words)}</faultstring>"
        f"<detail>{detail}</detail></soapenv:Fault>{_TAIL}"
    ).encode()


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


def _spaces() -> dict[str, str]:
    return {**_soap.SOAP_NSMAP, NAMESPACE: ""}
