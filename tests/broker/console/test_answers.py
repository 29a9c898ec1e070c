"""What the console makes of words in an address, and how forms take a service's refusal."""

from __future__ import annotations

from django import forms
from django.test import RequestFactory

from broker.console.answers import saved, typed, typed_uuid
from broker.services.errors import Clash, Invalid


def test_a_word_of_the_address_loses_nul_and_surrounding_space_and_is_cut() -> None:
    request = RequestFactory().get("/", {"q": " off\0ice " + "x" * 200})
    assert typed(request, "q", length=8) == "office x"
    assert typed(request, "missing") == ""


def test_an_id_that_is_none_does_not_narrow() -> None:
    assert typed_uuid(RequestFactory().get("/", {"pool": "1 OR 1=1"}), "pool") is None


class NameForm(forms.Form):
    name = forms.CharField()


def _refusing(error: Exception) -> NameForm:
    def refuse(_data: dict[str, object]) -> bool:
        raise error

    form = NameForm({"name": "x"})
    assert saved(form, refuse) is None
    return form


def test_a_fault_of_a_field_stands_at_the_field() -> None:
    assert _refusing(Invalid("Not made.", {"name": "Taken."})).errors == {"name": ["Taken."]}


def test_a_fault_of_a_field_the_form_does_not_have_stands_above() -> None:
    assert _refusing(Invalid("Not made.", {"colour": "Too red."})).non_field_errors() == ["Too red."]


def test_a_refusal_without_fields_stands_above() -> None:
    assert _refusing(Clash("Not now.")).non_field_errors() == ["Not now."]
