"""Files by which people's programs open desktops: whether they can be had, and by whom they are signed."""

from __future__ import annotations

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, posted, saved, show
from broker.models import Pool
from broker.services import signing
from broker.services.permissions import has


class SignerForm(forms.Form):
    """A certificate of the organisation's own."""

    certificates = forms.CharField(
        label="Certificates", max_length=signing.PEM_LIMIT,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        help_text="PEM: its own first, then those between it and your authority.",
    )  # fmt: skip
    key = forms.CharField(
        label="Private key", max_length=signing.PEM_LIMIT,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "autocomplete": "off"}),
        help_text="PEM, RSA. Kept encrypted and shown to nobody again.",
    )  # fmt: skip
    password = forms.CharField(
        label="Its password", required=False, strip=False, max_length=500, help_text="If the key is encrypted.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )  # fmt: skip


@needs(Right.REVIEW)
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    context = {
        "signer": signing.signer(),
        "rdp_door": settings.RDP_ADDRESS,
        "vnc_door": settings.VNC_ADDRESS,
        "pools": Pool.objects.filter(native_clients=True),
        "may_change": has(actor_of(request), Right.ADMINISTER),
    }
    return show(request, "console/client_files/detail.html", context)


@needs(Right.REVIEW)
@require_safe
def certificate(request: HttpRequest) -> HttpResponse:
    """To hand out to computers that shall trust the files."""
    headers = {"Content-Disposition": 'attachment; filename="deskyard-client-files.cer"'}
    return HttpResponse(signing.signer().der, content_type="application/pkix-cert", headers=headers)


@needs(Right.ADMINISTER)
@never_cache
def bring(request: HttpRequest) -> HttpResponse:
    form = SignerForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        brought = saved(form, lambda data: signing.bring(actor=actor, **data))
        if brought:
            return done(
                request, _("Files are signed by %s from now on.") % brought.name, reverse("console:client-files")
            )
    return show(request, "console/client_files/form.html", {"form": form}, status=422 if form.errors else 200)


@needs(Right.ADMINISTER)
def make_anew(request: HttpRequest) -> HttpResponse:
    question = Question(
        title=_("Make a new certificate for files?"),
        verb=_("Make it"),
        back=reverse("console:client-files"),
        sentences=[
            _("Deskyard signs files by it from now on, and the present certificate with its key is forgotten."),
            _("Computers that trust the present one warn until they have been told to trust the new one."),
        ],
    )

    def do() -> str:
        made = signing.make_anew(actor=actor_of(request))
        return _("Files are signed by %s from now on.") % made.name

    return ask_first(request, question, do, reverse("console:client-files"), leaves=True)
