"""What one has been told, and one's own choices."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from broker.domain.notices import Kind
from broker.portal.answers import is_htmx, person, signed_in, told
from broker.portal.frame import show
from broker.selectors import notices as selectors
from broker.services import notices
from broker.services.errors import Invalid

PAGE_SIZE = 25
TO_OWNERS = (Kind.REQUEST_ASKED, Kind.LEASE_OVERDUE)


@require_GET
@signed_in
def list_(request: HttpRequest) -> HttpResponse:
    user = person(request)
    page = Paginator(selectors.notices_of(user), PAGE_SIZE).get_page(request.GET.get("page"))
    told_so_far = [selectors.told(notice) for notice in page]
    context = {"page": page, "notices": told_so_far, "head": selectors.head_of(user)}
    if is_htmx(request):
        return render(request, "portal/notices/_list.html", context)
    return show(request, "portal/notices/list.html", context)


@require_POST
@signed_in
def follow(request: HttpRequest, notice_id: UUID) -> HttpResponse:
    """Mark it as read and go where something can be done about it."""
    user = person(request)
    notice = selectors.notices_of(user).filter(pk=notice_id).first()
    if notice is None:
        raise Http404
    notices.mark_read(user=user, notice_id=notice_id)
    if notice.kind == Kind.PUSH_STOPPED and notice.pool_id:
        return redirect("console:pool", notice.pool_id)
    if notice.kind not in TO_OWNERS:
        return redirect("portal:home")
    return redirect("portal:approvals" if selectors.head_of(user).is_owner else reverse("console:requests"))


@require_POST
@signed_in
def read_all(request: HttpRequest) -> HttpResponse:
    notices.mark_read(user=person(request))
    return told(request, _("All are marked as read."), to="portal:notices")


class ChoicesForm(forms.Form):
    """A person's own choices."""

    address = forms.EmailField(
        label=gettext_lazy("Address for mail"), required=False,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )  # fmt: skip
    wants_mail = forms.BooleanField(
        label=gettext_lazy("Send me notices by mail"), required=False,
        help_text=gettext_lazy("They always stand in the portal, too."),
    )  # fmt: skip
    opens_single = forms.BooleanField(
        label=gettext_lazy("Open my desktop at once if I have only one"), required=False,
        help_text=gettext_lazy("When you sign in. The way back to this page does not open it again."),
    )  # fmt: skip
    opens_natively = forms.BooleanField(
        label=gettext_lazy("Open desktops in an app of this computer, where they can be"), required=False,
        help_text=gettext_lazy("The Remote Desktop app or Remote Viewer; the browser stays in the desktop’s menu."),
    )  # fmt: skip


@require_http_methods(["GET", "POST"])
@signed_in
def choices(request: HttpRequest) -> HttpResponse:
    user = person(request)
    head = selectors.head_of(user)
    initial = {
        "address": user.email,
        "wants_mail": head.wants_mail,
        "opens_single": head.opens_single,
        "opens_natively": head.opens_natively,
    }
    form = ChoicesForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            notices.set_preferences(user=user, **form.cleaned_data)
        except Invalid as refusal:
            for name, words in refusal.fields.items():
                form.add_error(name, words)
        else:
            return told(request, _("Saved."), to="portal:choices-of-mine")
    return show(request, "portal/people/choices.html", {"form": form, "head": head}, status=422 if form.errors else 200)
