"""Where mail goes, by one address in the environment."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

SMTP_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}
"""Plain; encrypted after the greeting (STARTTLS); encrypted from the first byte."""
BACKENDS = "django.core.mail.backends"


@dataclass(frozen=True, slots=True)
class Mail:
    """Django's settings of the same names, and whether mail is sent at all."""

    is_on: bool = False
    backend: str = f"{BACKENDS}.dummy.EmailBackend"
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    use_tls: bool = False
    use_ssl: bool = False
    folder: str | None = None


def mail_of(url: str) -> Mail:
    """Of `smtp://`, `smtp+tls://` or `smtps://[USER:PASSWORD@]HOST[:PORT]`, `file:///FOLDER` or `console:`.

    Empty: no mail. User and password with characters that stand for something in an address are percent-encoded.
    Raises ValueError in words, without the password.
    """
    if not url:
        return Mail()
    parts = urlsplit(url)
    if parts.scheme == "console":
        return Mail(is_on=True, backend=f"{BACKENDS}.console.EmailBackend")
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return Mail(is_on=True, backend=f"{BACKENDS}.filebased.EmailBackend", folder=unquote(parts.path))
    if parts.scheme not in SMTP_PORTS or not parts.hostname:
        raise ValueError(
            "DESKYARD_EMAIL_URL is none of smtp://HOST, smtp+tls://USER:PASSWORD@HOST, smtps://USER:PASSWORD@HOST, "
            "file:///FOLDER and console:"
        )
    return Mail(
        is_on=True,
        backend=f"{BACKENDS}.smtp.EmailBackend",
        host=parts.hostname,
        port=parts.port or SMTP_PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        use_tls=parts.scheme == "smtp+tls",
        use_ssl=parts.scheme == "smtps",
    )
