"""A simulated Prism Central with one AHV cluster behind it."""

from __future__ import annotations

from lab.nutanix.server import Account, PrismServer

__all__ = ["Account", "PrismServer"]
