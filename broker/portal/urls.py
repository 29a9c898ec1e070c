"""The portal's pages."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from broker.portal import desktops, live, people, requests

app_name = "portal"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", desktops.home, name="home"),
    path("desktops/", desktops.tiles, name="tiles"),
    path("desktops/<uuid:desktop_id>/open/", desktops.viewer, name="viewer"),
    path("desktops/<uuid:desktop_id>/connect/", desktops.connect, name="connect"),
    path("desktops/<uuid:desktop_id>/state/", desktops.state, name="state"),
    path("desktops/<uuid:desktop_id>/choices/", desktops.choices, name="choices"),
    path("desktops/<uuid:desktop_id>/power/<slug:action>/", desktops.set_power, name="power"),
    path("desktops/<uuid:desktop_id>/release/", desktops.release, name="release"),
    path("pools/<uuid:pool_id>/request/", requests.ask, name="ask"),
    path("requests/<uuid:request_id>/cancel/", requests.cancel, name="cancel"),
    path("live/", live.events, name="live"),
    path("sign-in/", people.SignIn.as_view(), name="sign-in"),
    path("sign-out/", people.SignOut.as_view(), name="sign-out"),
]
