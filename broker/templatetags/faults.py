"""Where a page lays out a form by itself: what leads from a field to what is wrong with it. All templates know it."""

from __future__ import annotations

from django import template
from django.forms import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def described(bound: BoundField, name: object = "") -> SafeString | str:
    """For the element round several choices: leads to what is wrong with them, `components/errors.html` of that id."""
    return format_html(' aria-describedby="{}-error"', name or bound.name) if bound.errors else ""


@register.simple_tag
def faulty(bound: BoundField, name: object = "") -> SafeString | str:
    """The same for an input that a page writes by itself."""
    return format_html(' aria-invalid="true"{}', described(bound, name)) if bound.errors else ""
