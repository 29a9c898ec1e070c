"""From content to stored object and back: name, compression, encryption."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from disks.errors import Damaged

LEVEL = 1
"""zstd's: 3 takes a quarter longer and saves a tenth."""
NONCE = 12
DIGEST = 32
KEY = 32


class Seal:
    """How one vault names and wraps contents. With a key, names tell nothing about contents to who lacks it.

    An encrypted object is bound to its name, so that nobody can put one in another's place. Nonces are random: after
    2^32 objects (4 PiB) a vault should be begun anew.
    """

    def __init__(self, key: bytes | None) -> None:
        """Raises ValueError for a key that is not 32 bytes."""
        if key is not None and len(key) != KEY:
            raise ValueError("a vault's key has 32 bytes")
        self._naming = _derived(key, b"names") if key else None
        self._checking = _derived(key, b"check") if key else None
        self._cipher = AESGCM(_derived(key, b"contents")) if key else None
        self._threads = threading.local()

    @property
    def is_encrypted(self) -> bool:
        return self._cipher is not None

    def check(self, vault_id: str) -> str:
        """Tells whether a key is a vault's, and nothing about the key. Empty without encryption."""
        return hmac.new(self._checking, vault_id.encode(), "sha256").hexdigest() if self._checking else ""

    def name(self, content: bytes) -> bytes:
        if self._naming:
            return hmac.new(self._naming, content, "sha256").digest()
        return hashlib.sha256(content).digest()

    def close_up(self, name: str, content: bytes) -> bytes:
        """The object to be stored under this name."""
        packed = self._compressor().compress(content)
        if self._cipher is None:
            return packed
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, packed, name.encode())

    def open_up(self, name: str, stored: bytes, limit: int) -> bytes:
        """The content, of at most `limit` bytes. Raises `Damaged`. Whether it fits its name, the caller checks."""
        try:
            packed = stored
            if self._cipher is not None:
                packed = self._cipher.decrypt(stored[:NONCE], stored[NONCE:], name.encode())
            # The frame says how much memory it wants: a damaged one may want anything.
            if not 0 <= zstandard.frame_content_size(packed) <= limit:
                raise Damaged(f"Object {name} is damaged: too large. Verify the points of this vault.")
            return self._decompressor().decompress(packed)
        except (zstandard.ZstdError, InvalidTag, ValueError) as error:
            raise Damaged(f"Object {name} is damaged. Verify the points of this vault.") from error

    # zstandard's objects serve one thread at a time, and making one costs more than a small object.

    def _compressor(self) -> zstandard.ZstdCompressor:
        if not hasattr(self._threads, "compressor"):
            self._threads.compressor = zstandard.ZstdCompressor(level=LEVEL)
        compressor: zstandard.ZstdCompressor = self._threads.compressor
        return compressor

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        if not hasattr(self._threads, "decompressor"):
            self._threads.decompressor = zstandard.ZstdDecompressor()
        decompressor: zstandard.ZstdDecompressor = self._threads.decompressor
        return decompressor


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"deskyard vault " + purpose).derive(key)
