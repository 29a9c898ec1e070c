"""Templates: golden images, their versions, and the copies found on hypervisors."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show
from broker.models import TemplateCopy, TemplateVersion
from broker.selectors import audit, publications
from broker.selectors import templates as selectors
from broker.selectors.hypervisors import template_candidates
from broker.services import templates as services


class TemplateForm(forms.Form):
    name = forms.CharField(label="Name", max_length=100, help_text="Such as “Windows 11 office”.")
    os = forms.CharField(label="Operating system", max_length=60, required=False)
    description = forms.CharField(label="Description", required=False, widget=forms.Textarea(attrs={"rows": 3}))


class VersionForm(forms.Form):
    note = forms.CharField(
        label="What is new in it",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="For example: security updates of June.",
    )


def _address(template_id: UUID) -> str:
    return reverse("console:template", args=[template_id])


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    page = page_of(request, selectors.templates())
    return show(request, "console/templates/list.html", {"page": page})


@needs(Right.OPERATE)
def add(request: HttpRequest) -> HttpResponse:
    """A template comes with its first version, so that a copy can be linked at once."""
    form = TemplateForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        if template := saved(form, lambda data: services.create_template(actor=actor, **data)):
            version = services.add_version(actor=actor, template_id=template.pk)
            return redirect("console:copy-link", version.pk)
    return show(request, "console/templates/form.html", {"form": form}, status=422 if form.errors else 200)


@needs(Right.REVIEW)
def detail(request: HttpRequest, template_id: UUID) -> HttpResponse:
    template = get_object_or_404(selectors.templates(), pk=template_id)
    context = {
        "template": template,
        "usage": selectors.usage_of(template),
        "publications": publications.of_template(template_id, timezone.now()),
        "changes": audit.audit_of(template)[:10],
    }
    return show(request, "console/templates/detail.html", context)


@needs(Right.OPERATE)
def edit(request: HttpRequest, template_id: UUID) -> HttpResponse:
    template = get_object_or_404(selectors.templates(), pk=template_id)
    initial = {"name": template.name, "os": template.os, "description": template.description}
    form = TemplateForm(posted(request), initial=initial)
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change_template(actor=actor, template_id=template_id, **data)):
            return done(request, _("Saved."), _address(template_id))
    context = {"form": form, "template": template}
    return show(request, "console/templates/form.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def add_version(request: HttpRequest, template_id: UUID) -> HttpResponse:
    template = get_object_or_404(selectors.templates(), pk=template_id)
    form = VersionForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        version = saved(form, lambda data: services.add_version(actor=actor, template_id=template_id, **data))
        if version:
            return redirect("console:copy-link", version.pk)
    context = {"form": form, "template": template}
    return show(request, "console/templates/version.html", context, status=422 if form.errors else 200)


class LinkForm(forms.Form):
    machine = forms.UUIDField(error_messages={"required": "Choose what to link.", "invalid": "Choose what to link."})


@needs(Right.OPERATE)
def link_copy(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Choose from what inventory listed as templates."""
    version = get_object_or_404(TemplateVersion.objects.select_related("template"), pk=version_id)
    form = LinkForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        copy = saved(
            form, lambda data: services.link_copy(actor=actor, version_id=version_id, machine_id=data["machine"])
        )
        if copy:
            return done(request, _("Linked %s.") % copy.name, _address(version.template_id))
    page = page_of(request, template_candidates())
    context = {"form": form, "version": version, "template": version.template, "page": page}
    return show(request, "console/templates/link.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def remove_copy(request: HttpRequest, copy_id: UUID) -> HttpResponse:
    copy = get_object_or_404(TemplateCopy.objects.select_related("version__template", "hypervisor"), pk=copy_id)
    address = _address(copy.version.template_id)
    question = Question(
        title=_("Unlink %s?") % copy.name,
        verb=_("Unlink it"),
        back=address,
        sentences=[_("The image stays on %s as it is.") % copy.hypervisor],
    )

    def do() -> str:
        services.remove_copy(actor=actor_of(request), copy_id=copy_id)
        return _("Unlinked.")

    return ask_first(request, question, do, address)


@needs(Right.OPERATE)
def remove_version(request: HttpRequest, version_id: UUID) -> HttpResponse:
    version = get_object_or_404(TemplateVersion.objects.select_related("template"), pk=version_id)
    question = Question(
        title=_("Remove %s?") % version,
        verb=_("Remove it"),
        back=_address(version.template_id),
        sentences=[_("Its copies are unlinked; the images stay on their hypervisors.")],
    )

    def do() -> str:
        services.remove_version(actor=actor_of(request), version_id=version_id)
        return _("%s was removed.") % version

    return ask_first(request, question, do, _address(version.template_id))


@needs(Right.OPERATE)
def remove(request: HttpRequest, template_id: UUID) -> HttpResponse:
    template = get_object_or_404(selectors.templates(), pk=template_id)
    question = Question(
        title=_("Delete the template %s?") % template,
        verb=_("Delete it"),
        back=_address(template_id),
        sentences=[_("Its versions go with it; the images stay on their hypervisors.")],
        typed_name=template.name,
    )

    def do() -> str:
        services.remove_template(actor=actor_of(request), template_id=template_id)
        return _("%s was deleted.") % template

    return ask_first(request, question, do, reverse("console:templates"), leaves=True)
