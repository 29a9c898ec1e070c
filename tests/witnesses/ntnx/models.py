"""Nutanix's model classes as a strict judge of JSON, and their API classes as a table of calls.

Every rule is read from the installed client libraries: nothing is typed by hand here. Reading an answer with the
libraries proves little, since they let unknown properties, wrong enum words and untyped alternatives pass in silence.
Runs in the witness's own environment.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

PACKAGES = {name: f"ntnx_{name}_py_client" for name in ("vmm", "prism", "clustermgmt", "networking", "dataprotection")}
PRIMITIVES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
FREE = ("$reserved", "$unknownFields", "$objectType")


def check(package: str, kind: str, value: Any, where: str = "$") -> list[str]:
    """What is wrong with a value that should be of that type."""
    if value is None:
        return [f"{where}: null"]
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [it for at, one in enumerate(value) for it in check(package, found[1], one, f"{where}[{at}]")]
    if found := re.fullmatch(r"dict\(([^,]*), (.*)\)", kind):
        if not isinstance(value, dict):
            return [f"{where}: not an object"]
        return [it for name, one in value.items() for it in check(package, found[2], one, f"{where}.{name}")]
    if kind in ("object", "file"):
        return []
    if kind in PRIMITIVES:
        fits = isinstance(value, PRIMITIVES[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    if kind in ("datetime", "date"):
        return _time(value, where)
    return _model(package, kind, value, where)


def _time(value: Any, where: str) -> list[str]:
    try:
        datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return [f"{where}: {value!r} is no time"]
    return []


def find_class(package: str, kind: str) -> Any:
    """The class of a type name."""
    client = importlib.import_module(f"{package}.api_client").ApiClient
    models = importlib.import_module(f"{package}.models")
    name = client.DUPLICATE_SCHEMA_MAPPING.get(kind) or kind.rsplit(".", 1)[-1]
    return getattr(models, name)


def _model(package: str, kind: str, value: Any, where: str) -> list[str]:
    model = find_class(package, kind)
    if hasattr(model, "discriminator_value_class_map"):
        return _one_of(package, model, value, where)
    if not hasattr(model, "swagger_types"):
        allowed = {word for name, word in vars(model).items() if name.isupper() and isinstance(word, str)}
        return [] if value in allowed else [f"{where}: {value!r} is none of {sorted(allowed)}"]
    if not isinstance(value, dict):
        return [f"{where}: not an object"]
    told = value.get("$objectType")
    problems = [] if told in (None, kind) else [f"{where}: says it is a {told}, not a {kind}"]
    attributes = {json: name for name, json in model.attribute_map.items()}
    for name, one in value.items():
        if name in FREE or name.endswith("ItemDiscriminator"):
            continue
        if name not in attributes:
            problems.append(f"{where}.{name}: unknown to {kind}")
            continue
        problems += check(package, model.swagger_types[attributes[name]], one, f"{where}.{name}")
        problems += _rules(model, attributes[name], one, f"{where}.{name}")
    return problems


def _rules(model: Any, attribute: str, value: Any, where: str) -> list[str]:
    """Patterns, lengths and ranges: they stand in the setters."""
    if not isinstance(value, (str, int)):
        return []
    try:
        setattr(model(), attribute, value)
    except (ValueError, TypeError) as error:
        return [f"{where}: {error}"]
    return []


def _one_of(package: str, model: Any, value: Any, where: str) -> list[str]:
    choices = {name: kind for name, kind in model.discriminator_value_class_map.items() if not name.startswith("EMPTY")}
    lists = {name: kind for name, kind in choices.items() if kind.startswith("list[")}
    if isinstance(value, list):
        if not lists:
            return [f"{where}: may not be a list"]
        first = value[0].get("$objectType") if value and isinstance(value[0], dict) else None
        fitting = [kind for kind in lists.values() if kind == f"list[{first}]"]
        if value and not fitting:
            return [f"{where}: the first element says {first}, which is none of {sorted(lists.values())}"]
        return check(package, (fitting or list(lists.values()))[0], value, where)
    if isinstance(value, (str, int)):
        plain = [kind for kind in choices.values() if kind in PRIMITIVES and not check(package, kind, value)]
        return [] if plain else [f"{where}: {value!r} is none of {sorted(choices)}"]
    told = value.get("$objectType") if isinstance(value, dict) else None
    if told not in choices:
        return [f"{where}: $objectType is {told}, none of {sorted(choices)}"]
    return check(package, choices[told], value, where)


# --- calls -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    package: str
    method: str
    verb: str
    path: str
    """Without the version, with {parameters}."""
    queries: frozenset[str]
    body: str
    """Type of the body; empty if it takes none."""
    answer: str


def operations() -> Iterator[Operation]:
    """Every call of every API class."""
    for package in PACKAGES.values():
        apis = importlib.import_module(f"{package}.api")
        for module in pkgutil.iter_modules(apis.__path__):
            source = inspect.getsource(importlib.import_module(f"{package}.api.{module.name}"))
            for part in re.split(r"\n    def ", source)[1:]:
                if operation := _operation(package, part):
                    yield operation


def _operation(package: str, source: str) -> Operation | None:
    call = re.search(r"_call_api\(\s*'(/api/[^']+)', '([A-Z]+)'", source)
    answer = re.search(r"response_type='([^']+)'", source)
    if call is None:
        return None
    body = re.search(r":type body:\s*:class:`~?(?:\w+\.models\.)?([\w.]+)`", source)
    return Operation(
        package=package,
        method=source.split("(", 1)[0],
        verb=call[2],
        path=re.sub(r"/v\d+\.\d+/", "/", call[1]),
        queries=frozenset(re.findall(r"query_params\.append\(\('([^']+)'", source)),
        body=body[1] if body else "",
        answer=answer[1] if answer else "",
    )


def find_operation(verb: str, path: str) -> Operation | None:
    """The call of a real path, whose version does not matter."""
    plain = re.sub(r"/v\d+\.\d+/", "/", path)
    best = None
    for operation in _table():
        pattern = re.escape(operation.path)
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        # A literal path wins over one with a parameter in that place.
        is_better = best is None or operation.path.count("{") < best.path.count("{")
        if operation.verb == verb and re.fullmatch(pattern, plain) and is_better:
            best = operation
    return best


_known: list[Operation] = []


def _table() -> list[Operation]:
    if not _known:
        _known.extend(operations())
    return _known
