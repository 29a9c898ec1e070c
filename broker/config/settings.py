"""Settings, read from the environment. `make run` needs none of them.

DESKYARD_DATA      where state lies (default `var/` beside manage.py)
DESKYARD_HOST/PORT address of the web server (default 127.0.0.1:8000)
DESKYARD_SECRET_KEY  Django's key; else made once in DESKYARD_DATA
DESKYARD_VAULT_KEYS  comma-separated Fernet keys for secrets at rest, newest first; else made once in DESKYARD_DATA
DESKYARD_ALLOWED_HOSTS, DESKYARD_ORIGINS  comma-separated; needed behind a proxy
DESKYARD_HTTPS     "1" behind TLS: secure cookies, HSTS, wss
DESKYARD_RELAY_URL public ws(s) address of the relay if it runs apart
DESKYARD_RDP_PORT  where the door for Remote Desktop programs listens (default: there is none)
DESKYARD_VNC_PORT  the same for Remote Viewer; needs DESKYARD_VNC_CERTIFICATE and DESKYARD_VNC_KEY, PEM files
DESKYARD_DOORS_HOST  on which of this machine's addresses both listen (default DESKYARD_HOST)
DESKYARD_RDP_ADDRESS, DESKYARD_VNC_ADDRESS  HOST:PORT by which programs reach these doors (default: the host of
                   DESKYARD_URL, and their ports); web nodes need only these
DESKYARD_SCREEN_IDLE_S  a screen without key or mouse for so long is closed (default 4 h)
DESKYARD_URL       public address of the portal, for links in mails (default http://HOST:PORT)
DESKYARD_EMAIL_URL where mail goes: smtp+tls://USER:PASSWORD@HOST:587, smtps://, smtp://, file:///FOLDER, console:
                   (default: no mail is sent); see `broker/config/mail.py`
DESKYARD_EMAIL_FROM  who it comes from (default deskyard@HOST)
DATABASE_URL, REDIS_URL  PostgreSQL and Redis or Valkey; else SQLite and the embedded Valkey, both in DESKYARD_DATA
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
import structlog
from cryptography.fernet import Fernet
from django.core.management.utils import get_random_secret_key

from broker.config.mail import mail_of

BASE_DIR = Path(__file__).resolve().parent.parent.parent
DATA_DIR = Path(os.environ.get("DESKYARD_DATA", BASE_DIR / "var")).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)


def _kept(name: str, make: str) -> str:
    """A secret of this installation: read from DATA_DIR, written there (mode 0600) the first time."""
    path = DATA_DIR / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(make)
    return make


def _list(name: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def _socket(name: str) -> Path:
    """A path below DATA_DIR, or below /tmp if that one is longer than the kernel takes for a socket (107 bytes)."""
    path = DATA_DIR / "run" / name
    if len(os.fsencode(path)) <= 100:
        return path
    return Path(f"/tmp/deskyard-{hashlib.sha256(os.fsencode(DATA_DIR)).hexdigest()[:16]}") / name  # noqa: S108 - `run` makes it private


def _host_of(url: str) -> str:
    """As it stands before a port: an IPv6 address in brackets."""
    return urlsplit(url).netloc.rpartition("@")[2].removesuffix(f":{urlsplit(url).port}")


HOST = os.environ.get("DESKYARD_HOST", "127.0.0.1")
PORT = int(os.environ.get("DESKYARD_PORT", "8000"))
HTTPS = os.environ.get("DESKYARD_HTTPS") == "1"
RELAY_URL = os.environ.get("DESKYARD_RELAY_URL", "")
SCREEN_IDLE_S = int(os.environ.get("DESKYARD_SCREEN_IDLE_S", "14400"))
DEMO_EXPECTED = os.environ.get("DESKYARD_DEMO") == "1"
"""Set by `manage.py run`: until the demo has a ready desktop once, this installation is not healthy."""
WITH_LAB = os.environ.get("DESKYARD_LAB", "1") != "0"
"""Whether `make run` starts simulated hypervisors beside this machine's libvirt."""
DEMO_PASSWORD = os.environ.get("DESKYARD_DEMO_PASSWORD", "")

DEBUG = os.environ.get("DESKYARD_DEBUG") == "1"
SECRET_KEY = os.environ.get("DESKYARD_SECRET_KEY") or _kept("secret.key", get_random_secret_key())
VAULT_KEYS = _list("DESKYARD_VAULT_KEYS") or _kept("vault.key", Fernet.generate_key().decode()).split(",")
ALLOWED_HOSTS = _list("DESKYARD_ALLOWED_HOSTS") or sorted({HOST, "127.0.0.1", "localhost", "[::1]"} - {"0.0.0.0"})  # noqa: S104 - left out
if HOST == "0.0.0.0" and not os.environ.get("DESKYARD_ALLOWED_HOSTS"):  # noqa: S104 - compared, not bound
    ALLOWED_HOSTS = ["*"]
ORIGINS = _list("DESKYARD_ORIGINS")
"""Origins that may open a screen beside the request's own host."""
CSRF_TRUSTED_ORIGINS = ORIGINS

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "broker",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "broker.config.compression.Compressed",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "broker.config.middleware.SecurityHeaders",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "broker.config.sent_once.SentOnce",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
AUTHENTICATION_BACKENDS = ["broker.config.accounts.Accounts"]
ROOT_URLCONF = "broker.config.urls"
ASGI_APPLICATION = "broker.config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "broker.console.access.can",
            ],
            "builtins": ["broker.templatetags.deskyard", "broker.templatetags.faults"],
        },
    }
]

DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{DATA_DIR / 'deskyard.sqlite3'}", conn_max_age=60)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE: a transaction takes the write lock when it begins, so that it never fails half-way on an upgrade.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }
VALKEY_SOCKET = _socket("valkey.sock")
"""Where the embedded Valkey of `make run` listens: a file that only this account may open."""
REDIS_URL = os.environ.get("REDIS_URL") or f"unix://{VALKEY_SOCKET}"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"

# Installations on one address but different ports would overwrite each other's cookies under one name.
SESSION_COOKIE_NAME = f"deskyard_session_{PORT}"
CSRF_COOKIE_NAME = f"deskyard_csrf_{PORT}"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_AGE = 12 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
X_FRAME_OPTIONS = "DENY"

_mail = mail_of(os.environ.get("DESKYARD_EMAIL_URL", ""))
MAIL_IS_ON = _mail.is_on
EMAIL_BACKEND, EMAIL_FILE_PATH = _mail.backend, _mail.folder
EMAIL_HOST, EMAIL_PORT = _mail.host, _mail.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail.user, _mail.password
EMAIL_USE_TLS, EMAIL_USE_SSL, EMAIL_TIMEOUT = _mail.use_tls, _mail.use_ssl, 20
PUBLIC_URL = os.environ.get("DESKYARD_URL", f"{'https' if HTTPS else 'http'}://{HOST}:{PORT}").rstrip("/")
DOORS_HOST = os.environ.get("DESKYARD_DOORS_HOST", HOST)
RDP_PORT = int(os.environ.get("DESKYARD_RDP_PORT") or 0)
"""0: this machine has no door for Remote Desktop programs."""
RDP_ADDRESS = os.environ.get("DESKYARD_RDP_ADDRESS") or (f"{_host_of(PUBLIC_URL)}:{RDP_PORT}" if RDP_PORT else "")
"""Empty: nobody is offered a file for such a program."""
VNC_PORT = int(os.environ.get("DESKYARD_VNC_PORT") or 0)
VNC_ADDRESS = os.environ.get("DESKYARD_VNC_ADDRESS") or (f"{_host_of(PUBLIC_URL)}:{VNC_PORT}" if VNC_PORT else "")
VNC_CERTIFICATE, VNC_KEY = os.environ.get("DESKYARD_VNC_CERTIFICATE", ""), os.environ.get("DESKYARD_VNC_KEY", "")
DEFAULT_FROM_EMAIL = os.environ.get("DESKYARD_EMAIL_FROM", f"Deskyard <deskyard@{HOST}>")

LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA_DIR / "static"
# Vendored folders carry their version in the path and their modules import each other by relative path: no hashes.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 300

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CONNECTOR_WORKDIR = DATA_DIR / "connectors"
PROBE_IMAGE = Path(os.environ.get("DESKYARD_PROBE_IMAGE", DATA_DIR / "images" / "tiny"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "processor": structlog.dev.ConsoleRenderer(colors=False),
            "foreign_pre_chain": [structlog.processors.TimeStamper(fmt="iso"), structlog.stdlib.add_log_level],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": os.environ.get("DESKYARD_LOG_LEVEL", "INFO")},
    "loggers": {"django.request": {"level": "ERROR"}, "celery": {"level": "WARNING"}, "kombu": {"level": "WARNING"}},
}
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
