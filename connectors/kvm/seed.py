"""NoCloud seeds: what cloud-init reads at a guest's first boot. Pure: bytes in, bytes out.

Format: cloud-init documentation, "NoCloud": an ISO 9660 volume named `cidata` with `meta-data` and `user-data`.
"""

from __future__ import annotations

import io
import json

import pycdlib

from connectors.base import GuestSeed


def seed_iso(seed: GuestSeed, instance: str) -> bytes:
    """An ISO image for one guest. `instance` is new for every new disk, so that cloud-init runs again on it.

    Values are written as JSON, which is YAML: quotes and newlines in a hostname stay inside it.
    """
    meta_data = json.dumps({"instance-id": instance, "local-hostname": seed.hostname}) + "\n"
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    try:
        for iso_name, name, text in (
            ("/METADATA.;1", "meta-data", meta_data),
            ("/USERDATA.;1", "user-data", seed.user_data or "#cloud-config\n{}\n"),
        ):
            content = text.encode()
            image.add_fp(io.BytesIO(content), len(content), iso_name, rr_name=name, joliet_path=f"/{name}")
        written = io.BytesIO()
        image.write_fp(written)
        return written.getvalue()
    finally:
        image.close()
