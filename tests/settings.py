"""Settings under test: the real ones, in a data directory of their own, with fast password hashes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("DESKYARD_DATA", tempfile.mkdtemp(prefix="deskyard-test-"))

from broker.config.settings import *  # noqa: F403
from broker.config.settings import BASE_DIR, DATA_DIR, DATABASES, STATIC_ROOT

# The instant connector registers by entry point, from a .dist-info folder that only tests put on the path.
sys.path.insert(0, str(Path(BASE_DIR) / "tests" / "doubles"))

# whitenoise warns where it is not, and warnings are errors.
STATIC_ROOT.mkdir(exist_ok=True)

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, not memory: threads and servers that a test starts see the same rows.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
