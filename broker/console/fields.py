"""Fields of the console's forms that Django has not."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _

from broker.domain.spans import span_in_words, span_of
from broker.services.intake import WHOLE_LIMIT

HOUR_S = 3600
MINUTE_S = 60


class WholeField(forms.IntegerField):
    """A whole number that the database can keep."""

    def __init__(self, *, max_value: int = WHOLE_LIMIT, **kwargs: Any) -> None:
        super().__init__(max_value=max_value, **kwargs)


class SpanField(forms.CharField):
    """A length of time as people write it; seconds. Empty if not required: None."""

    widget = forms.TextInput(attrs={"autocomplete": "off", "inputmode": "text"})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            return span_of(text)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None

    def prepare_value(self, value: Any) -> Any:
        return span_in_words(value) if isinstance(value, int) else value


class HoursField(SpanField):
    """The same in whole hours."""

    def to_python(self, value: Any) -> Any:
        seconds = super().to_python(value)
        if seconds is None:
            return None
        if seconds % HOUR_S:
            raise forms.ValidationError(_("Whole hours or days, such as 8 h or 7 days."))
        return seconds // HOUR_S

    def prepare_value(self, value: Any) -> Any:
        if value == 0:
            return "0 h"
        return super().prepare_value(value * HOUR_S) if isinstance(value, int) else value


class MinutesField(SpanField):
    """The same in whole minutes."""

    def to_python(self, value: Any) -> Any:
        seconds = super().to_python(value)
        if seconds is None:
            return None
        if seconds % MINUTE_S:
            raise forms.ValidationError(_("Whole minutes, hours or days, such as 30 min or 2 h."))
        return seconds // MINUTE_S

    def prepare_value(self, value: Any) -> Any:
        return super().prepare_value(value * MINUTE_S) if isinstance(value, int) else value
