"""vSphere's published types (pyvmomi), which are made at run time: nothing is known of them to a type checker."""

from __future__ import annotations

from typing import Any

import pyVmomi

_published: Any = pyVmomi
vim = _published.vim
vmodl = _published.vmodl
SoapAdapter = _published.SoapAdapter


def type_named(name: str) -> Any:
    """The type of that name on the wire ("VirtualVmxnet3"). Raises KeyError."""
    return _published.VmomiSupport.GuessWsdlType(name)
