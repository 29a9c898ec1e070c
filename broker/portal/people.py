"""Signing in and out."""

from __future__ import annotations

import math
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import forms as auth_forms
from django.contrib.auth import views as auth_views
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from broker.portal.answers import ARRIVED
from broker.services import guesses, screens


def address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


class SignInForm(auth_forms.AuthenticationForm):
    """User name and password. Says neither which of them was wrong nor whether an account exists or is switched off."""

    error_messages = {
        "invalid_login": gettext_lazy("The user name or the password is wrong. Mind capital letters in the password."),
        "inactive": gettext_lazy("The user name or the password is wrong. Mind capital letters in the password."),
    }

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.fields["username"].label = gettext_lazy("User name")

    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username") or ""
        from_where = address(self.request) if self.request else ""
        self._refuse_guessing(username, from_where)
        try:
            cleaned = super().clean()
        except forms.ValidationError:
            guesses.note_failure(username=username, address=from_where)
            raise
        if username and cleaned.get("password"):
            guesses.note_success(username=username, address=from_where)
        return cleaned

    def _refuse_guessing(self, username: str, from_where: str) -> None:
        """The password is not even looked at while the account must wait."""
        minutes = math.ceil(guesses.wait_s(username=username, address=from_where) / 60)
        if minutes:
            raise forms.ValidationError(
                ngettext(
                    "Too many wrong passwords. Try again in %(n)d minute.",
                    "Too many wrong passwords. Try again in %(n)d minutes.",
                    minutes,
                )
                % {"n": minutes},
                code="wait",
            )


class SignIn(auth_views.LoginView):
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: auth_forms.AuthenticationForm) -> HttpResponse:
        answer = super().form_valid(form)
        if answer.headers["Location"] == resolve_url(settings.LOGIN_REDIRECT_URL):
            self.request.session[ARRIVED] = True
        return answer

    def form_invalid(self, form: auth_forms.AuthenticationForm) -> HttpResponse:
        answer = super().form_invalid(form)
        answer.status_code = 429 if form.has_error("__all__", "wait") else 422
        return answer


class SignOut(auth_views.LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user = request.user
        answer = super().post(request, *args, **kwargs)
        if isinstance(user, User):
            screens.recheck(user=user.pk)
        messages.info(request, _("You are signed out. Your desktops keep running."))
        return answer
