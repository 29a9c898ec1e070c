"""What goes in and out: types with their documentation, which stands in the OpenAPI description too."""

from __future__ import annotations

from ninja import Schema
from pydantic import ConfigDict


class Out(Schema):
    """An answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class In(Schema):
    """A wish. A field that we do not know is refused: a misspelt one must not be silently ignored."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class Switch(In):
    on: bool
