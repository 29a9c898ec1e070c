"""Opens the connector of a registered hypervisor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings

from broker.hypervisors import sealing, workdirs
from broker.models import Hypervisor, Installation
from connectors.base import Connector, Surroundings
from connectors.errors import CredentialsRejected, PlatformFault
from connectors.registry import UnknownKind, load

_places: dict[int, workdirs.Workdir] = {}
"""Of the connectors that are open in this process, by the object's identity: they need not be hashable."""


@cache
def installation_id() -> str:
    """The id of this installation, made by the first migration; never changes."""
    return str(Installation.objects.values_list("pk", flat=True).get())


def secret_fields(kind: str) -> frozenset[str]:
    """Names of the settings that must be encrypted."""
    return frozenset(f.name for f in dataclasses.fields(load(kind).settings) if f.metadata.get("secret"))


def make(kind: str, plain: Mapping[str, Any], secrets: Mapping[str, str]) -> Connector:
    """A connector object; does no I/O at the endpoint. Unknown settings are an error of ours and raise TypeError.

    It has a working directory of its own, which goes with it (`shut`), or after this process died, however it did.
    """
    connector = load(kind)
    known = {field.name for field in dataclasses.fields(connector.settings)}
    values = {name: value for name, value in {**plain, **secrets}.items() if name in known}
    probe = settings.PROBE_IMAGE if (settings.PROBE_IMAGE / "vmlinuz").exists() else None
    maker: Any = connector
    place = workdirs.take(Path(settings.CONNECTOR_WORKDIR))
    try:
        around = Surroundings(installation=installation_id(), workdir=place.folder, probe_image=probe)
        made: Connector = maker(connector.settings(**values), around)
    except BaseException:
        place.give_back()
        raise
    _places[id(made)] = place
    return made


def open_hypervisor(hypervisor: Hypervisor) -> Connector:
    """The connector of a registered hypervisor, with its secrets. Whoever opens it closes it.

    Raises `CredentialsRejected` if no configured key opens the secrets, `PlatformFault` if the connector is missing.
    """
    try:
        return make(hypervisor.kind, hypervisor.settings, sealing.unseal(hypervisor.secrets))
    except sealing.SecretsLocked as error:
        raise CredentialsRejected(f"Cannot sign in to {hypervisor}. {error}") from error
    except (UnknownKind, ImportError) as error:
        words = f"{hypervisor} needs the connector {hypervisor.kind!r}, which is not installed on this worker."
        raise PlatformFault(words, platform_words=str(error)) from error


def access(hypervisor: Hypervisor) -> int:
    """A number that changes with anything by which the hypervisor is reached. Good within one process."""
    return hash((hypervisor.kind, repr(sorted(hypervisor.settings.items())), bytes(hypervisor.secrets)))


def shut(connector: Connector) -> None:
    """Close it, and remove its working directory with whatever it left there."""
    try:
        connector.close()
    finally:
        if place := _places.pop(id(connector), None):
            place.give_back()


@contextmanager
def opened(hypervisor: Hypervisor) -> Iterator[Connector]:
    connector = open_hypervisor(hypervisor)
    try:
        yield connector
    finally:
        shut(connector)
