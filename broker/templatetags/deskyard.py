"""Tags and filters that every template knows."""

from __future__ import annotations

from django import template

register = template.Library()
