"""The portal's pages."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from broker.portal import applications, approvals, desktops, frame, live, notices, people, requests, screens

app_name = "portal"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", desktops.home, name="home"),
    path("desktops/", desktops.tiles, name="tiles"),
    path("desktops/<uuid:desktop_id>/open/", desktops.viewer, name="viewer"),
    path("desktops/<uuid:desktop_id>/connect/", desktops.connect, name="connect"),
    path("desktops/<uuid:desktop_id>/file/", desktops.client_file, name="file"),
    path("desktops/<uuid:desktop_id>/state/", desktops.state, name="state"),
    path("desktops/<uuid:desktop_id>/told/", desktops.told_of_it, name="told"),
    path("desktops/<uuid:desktop_id>/choices/", desktops.choices, name="choices"),
    path("desktops/<uuid:desktop_id>/power/<slug:action>/", desktops.set_power, name="power"),
    path("desktops/<uuid:desktop_id>/release/", desktops.release, name="release"),
    path("desktops/<uuid:desktop_id>/renew/", desktops.renew, name="renew"),
    path("applications/<uuid:application_id>/ask/", applications.ask, name="application-ask"),
    path("pools/<uuid:pool_id>/request/", requests.ask, name="ask"),
    path("requests/<uuid:request_id>/cancel/", requests.cancel, name="cancel"),
    path("pools/<uuid:pool_id>/favourite/", desktops.set_favourite, name="favourite"),
    path("screens/", screens.list_, name="screens"),
    path("screens/<uuid:session_id>/end/", screens.end, name="end-screen"),
    path("sessions/<uuid:session_id>/disconnect/", screens.disconnect, name="disconnect"),
    path("sessions/<uuid:session_id>/log-off/", screens.log_off, name="log-off"),
    path("approvals/", approvals.list_, name="approvals"),
    path("approvals/<uuid:request_id>/approve/", approvals.approve, name="approve"),
    path("approvals/<uuid:request_id>/decline/", approvals.decline, name="decline"),
    path("notices/", notices.list_, name="notices"),
    path("notices/read/", notices.read_all, name="read-all"),
    path("notices/<uuid:notice_id>/follow/", notices.follow, name="follow"),
    path("me/", notices.choices, name="choices-of-mine"),
    path("head/", frame.head, name="head"),
    path("live/", live.events, name="live"),
    path("sign-in/", people.SignIn.as_view(), name="sign-in"),
    path("sign-out/", people.SignOut.as_view(), name="sign-out"),
]
