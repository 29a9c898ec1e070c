"""People: accounts, groups, and the tokens their tools sign in with."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, insist, needs, staff_only
from broker.console.answers import Question, ask_first, done, posted, saved, show, typed
from broker.console.fields import WholeField
from broker.console.lists import Column, Listing
from broker.domain.permissions import MEANS, NAMES, RIGHTS, WORDS, Role
from broker.models import ApiToken
from broker.selectors import audit, pools, sessions
from broker.selectors import people as selectors
from broker.services import people as services
from broker.services.permissions import has, role_kept, role_of


def _account(user: User) -> str:
    if not user.is_active:
        return "closed"
    role = role_of(user)
    return role.value if role else "user"


LIST = Listing(
    "people",
    Column("user", gettext_lazy("User"), lambda row: row.username, ("username",)),
    Column("account", gettext_lazy("Account"), _account, ("is_active", "is_staff", "username")),
    Column("groups", gettext_lazy("Groups"), lambda row: ", ".join(group.name for group in row.groups.all())),
    Column("desktops", gettext_lazy("Desktops"), lambda row: row.desktops, ("desktops",), begins_down=True),
    Column("last-sign-in", gettext_lazy("Last sign-in"), lambda row: row.last_login, ("last_login",), begins_down=True),
)
SESSIONS_SHOWN = 5
NEW_PASSWORD = {"autocomplete": "new-password"}


def _address(user_id: int) -> str:
    return reverse("console:user", args=[user_id])


ROLES = [
    ("", "Nothing: uses the portal alone"),
    *((role.value, f"{NAMES[role]}. {MEANS[role]}") for role in Role),
]


def _role(word: str) -> Role | None:
    return Role(word) if word else None


class UserForm(forms.Form):
    name = forms.CharField(label="Sign-in name", max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    password = forms.CharField(label="Password", strip=False, widget=forms.PasswordInput(attrs=NEW_PASSWORD))
    role = forms.ChoiceField(label="In the console", choices=ROLES, required=False, widget=forms.RadioSelect)
    groups = forms.ModelMultipleChoiceField(
        label="Groups", queryset=Group.objects.order_by("name"), required=False, widget=forms.CheckboxSelectMultiple
    )


class GroupForm(forms.Form):
    name = forms.CharField(label="Name", max_length=150)


class GroupsForm(forms.Form):
    groups = forms.ModelMultipleChoiceField(
        label="Groups", queryset=Group.objects.order_by("name"), required=False, widget=forms.CheckboxSelectMultiple
    )


class RoleForm(forms.Form):
    role = forms.ChoiceField(label="In the console", choices=ROLES, required=False, widget=forms.RadioSelect)


class PasswordForm(forms.Form):
    password = forms.CharField(label="New password", strip=False, widget=forms.PasswordInput(attrs=NEW_PASSWORD))


class TokenForm(forms.Form):
    name = forms.CharField(label="What is it for?", max_length=100, help_text="Such as “nightly report”.")
    days = WholeField(label="Valid for (days)", min_value=1, max_value=366, initial=30)
    scopes = forms.MultipleChoiceField(label="It may", widget=forms.CheckboxSelectMultiple)

    def __init__(self, user: User, data: object = None) -> None:
        super().__init__(data)  # type: ignore[arg-type]
        words = {
            services.PORTAL: _("Use the user’s own desktops"),
            services.ADMIN: _("Do in the console what the user’s role may"),
        }
        self._user = user
        field = self.fields["scopes"]
        assert isinstance(field, forms.MultipleChoiceField)  # noqa: S101 - for the type checker
        field.choices = [(scope, words[scope]) for scope in services.own_scopes(user)]
        field.initial = [services.PORTAL]

    def clean_name(self) -> str:
        """The answer is a secret that nobody keeps to say it again: sent twice, the name keeps it from being two."""
        name: str = self.cleaned_data["name"].strip()
        if selectors.tokens_of(self._user).filter(revoked_at=None, name__iexact=name).exists():
            raise forms.ValidationError(_("There is already a token of that name."))
        return name


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    text = typed(request, "q")
    context = {"text": text, "groups": selectors.groups()}
    return LIST.answer(request, "console/people/list.html", selectors.users(text), context)


@needs(Right.ADMINISTER)
def add_user(request: HttpRequest) -> HttpResponse:
    form = UserForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        user = saved(
            form,
            lambda data: services.create_user(
                actor=actor,
                name=data["name"],
                password=data["password"],
                role=_role(data["role"]),
                group_ids=[group.pk for group in data["groups"]],
            ),
        )
        if user:
            return redirect("console:user", user.pk)
    return _form_page(request, form, _("Add a user"), _("Add the user"))


@needs(Right.ADMINISTER)
def add_group(request: HttpRequest) -> HttpResponse:
    form = GroupForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        if group := saved(form, lambda data: services.create_group(actor=actor, name=data["name"])):
            return done(request, _("The group %s was added.") % group, reverse("console:people"))
    return _form_page(request, form, _("Add a group"), _("Add the group"))


@staff_only
def detail(request: HttpRequest, user_id: int) -> HttpResponse:
    person = get_object_or_404(selectors.users(), pk=user_id)
    context = {
        "person": person,
        "assignments": selectors.assignments_of(person),
        "entitlements": selectors.entitlements_of(person),
        "sessions": sessions.sessions().filter(user=person)[:SESSIONS_SHOWN],
        "tokens": selectors.tokens_of(person),
        "changes": audit.audit_of(person)[:10],
        "role": _told(role) if (role := role_of(person)) else None,
        "owned": pools.pools_owned(person).order_by("name"),
        "looks_after": person == request.user or has(request.user, Right.ADMINISTER),
    }
    return show(request, "console/people/detail.html", context)


def _told(role: Role) -> dict[str, object]:
    """What a role may and what not, in words."""
    rights = [{"words": words, "has": right in RIGHTS[role]} for right, words in WORDS.items()]
    return {"name": NAMES[role], "means": MEANS[role], "rights": sorted(rights, key=lambda right: not right["has"])}


@needs(Right.ADMINISTER)
def set_groups(request: HttpRequest, user_id: int) -> HttpResponse:
    person = get_object_or_404(User, pk=user_id)
    form = GroupsForm(posted(request), initial={"groups": person.groups.all()})
    if request.method == "POST":
        actor = actor_of(request)
        changed = saved(
            form,
            lambda data: services.set_groups(
                actor=actor, user_id=user_id, group_ids=[group.pk for group in data["groups"]]
            ),
        )
        if changed:
            return done(request, _("Saved."), _address(user_id))
    return _form_page(request, form, _("Groups of %s") % person, _("Save"), person)


@needs(Right.ADMINISTER)
def set_role(request: HttpRequest, user_id: int) -> HttpResponse:
    person = get_object_or_404(User.objects.select_related("staff_role"), pk=user_id)
    form = RoleForm(posted(request), initial={"role": role_kept(person) or ""})
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.set_role(actor=actor, user_id=user_id, role=_role(data["role"]))):
            return done(request, _("Saved."), _address(user_id))
    return _form_page(request, form, _("Role of %s") % person, _("Save"), person)


@needs(Right.SEE, sending=Right.SEE)
def set_password(request: HttpRequest, user_id: int) -> HttpResponse:
    _insist_on_own(request, user_id)
    person = get_object_or_404(User, pk=user_id)
    form = PasswordForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)

        def change(data: dict[str, str]) -> bool:
            services.set_password(actor=actor, user_id=user_id, password=data["password"])
            return True

        if saved(form, change):
            return done(request, _("%s has a new password.") % person, _address(user_id))
    return _form_page(request, form, _("New password for %s") % person, _("Set the password"), person)


@needs(Right.ADMINISTER)
def set_active(request: HttpRequest, user_id: int) -> HttpResponse:
    person = get_object_or_404(User, pk=user_id)
    on = not person.is_active
    question = Question(
        title=_("Open the account of %s again?") % person if on else _("Close the account of %s?") % person,
        verb=_("Open it") if on else _("Close it"),
        back=_address(user_id),
        sentences=[] if on else [_("They cannot sign in, their tokens do not work, and open screens close.")],
        is_harmless=on,
    )

    def do() -> str:
        services.set_user_active(actor=actor_of(request), user_id=user_id, on=on)
        return _("The account is open.") if on else _("The account is closed.")

    return ask_first(request, question, do, _address(user_id))


@needs(Right.SEE, sending=Right.SEE)
def make_token(request: HttpRequest, user_id: int) -> HttpResponse:
    """The token's text is on the answer to this one POST and nowhere else."""
    _insist_on_own(request, user_id)
    person = get_object_or_404(User, pk=user_id)
    form = TokenForm(person, posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(form, lambda data: services.make_token(actor=actor, user=person, **data))
        if made:
            token, plain = made
            return show(request, "console/people/token.html", {"person": person, "token": token, "plain": plain})
    return _form_page(request, form, _("API token for %s") % person, _("Make the token"), person)


@needs(Right.SEE, sending=Right.SEE)
def revoke_token(request: HttpRequest, token_id: UUID) -> HttpResponse:
    token = get_object_or_404(ApiToken.objects.select_related("user"), pk=token_id)
    _insist_on_own(request, token.user_id)
    question = Question(
        title=_("Revoke the token %s?") % token.name,
        verb=_("Revoke it"),
        back=_address(token.user_id),
        sentences=[_("Whatever signs in with it stops working at once.")],
    )

    def do() -> str:
        services.revoke_token(actor=actor_of(request), token_id=token_id)
        return _("The token was revoked.")

    return ask_first(request, question, do, _address(token.user_id))


def _insist_on_own(request: HttpRequest, user_id: int) -> None:
    """Everybody looks after their own account, administrators after all. Raises `PermissionDenied`."""
    if actor_of(request).pk != user_id:
        insist(request, Right.ADMINISTER)


def _form_page(
    request: HttpRequest, form: forms.Form, title: str, verb: str, person: User | None = None
) -> HttpResponse:
    context = {"form": form, "title": title, "verb": verb, "person": person}
    return show(request, "console/people/form.html", context, status=422 if form.errors else 200)
