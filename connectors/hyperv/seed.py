"""What a guest reads at its first boot: an ISO 9660 image in its DVD drive. Pure: bytes in, bytes out.

Linux: cloud-init's NoCloud ("NoCloud" in its documentation), a volume named `cidata` with `meta-data` and `user-data`.
Windows: Sysprep's `Unattend.xml` at the root of a removable drive (Microsoft, "Windows Setup Automation Overview",
implicit answer file search order). Both may stand on one image.
"""

from __future__ import annotations

import base64
import gzip
import io
import json

import pycdlib

from connectors.base import GuestSeed


def seed_iso(seed: GuestSeed, instance: str) -> bytes:
    """`instance` is new for every new disk, so that cloud-init runs again on it.

    Values are written as JSON, which is YAML: quotes and newlines in a hostname stay inside it.
    """
    meta_data = json.dumps({"instance-id": instance, "local-hostname": seed.hostname}) + "\n"
    files = [
        ("/METADATA.;1", "meta-data", meta_data),
        ("/USERDATA.;1", "user-data", seed.user_data or "#cloud-config\n{}\n"),
    ]
    if seed.answer_file:
        files.append(("/UNATTEND.XML;1", "Unattend.xml", seed.answer_file))
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    try:
        for iso_name, name, text in files:
            content = text.encode()
            image.add_fp(io.BytesIO(content), len(content), iso_name, rr_name=name, joliet_path=f"/{name}")
        written = io.BytesIO()
        image.write_fp(written)
        return written.getvalue()
    finally:
        image.close()


def packed(image: bytes) -> str:
    """As it travels in a script's parameters: mostly zeros, so a hundredth of its size."""
    return base64.b64encode(gzip.compress(image, mtime=0)).decode("ascii")
