"""Secrets at rest: AES-256-GCM under a key file that only its owner reads.

The reference that a value is sealed under is authenticated with it. References are made of namespace,
name, key and the value's MAC, so a ciphertext that was moved to another place does not open there.
Values are compared by a MAC under a key of its own, derived from the same file; without the file,
neither says anything about a value. No value is in a log, an error or a repr.
"""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from controlplane.resources.problems import refuse
from schemas.base import canonical

KEY_BYTES = 32
NONCE_BYTES = 12


class Vault:
    """Seals and opens under one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(_derived(key, b"steward secrets: encryption"))
        self._mac_key = _derived(key, b"steward secrets: comparison")

    @classmethod
    def at(cls, path: Path) -> "Vault":
        """The vault of a key file, which is made 0600 when there is none."""
        return cls(_key_of(path))

    def seal(self, ref: str, value: str) -> tuple[bytes, bytes]:
        """Nonce and ciphertext of the value, readable by this vault alone, at this reference alone."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce, self._cipher.encrypt(nonce, value.encode(), ref.encode())

    def open(self, ref: str, nonce: bytes, ciphertext: bytes) -> str:
        """The value; raises INTERNAL when it was sealed under another key or reference."""
        try:
            return self._cipher.decrypt(nonce, ciphertext, ref.encode()).decode()
        except InvalidTag:
            detail = f"the secret value {ref} was sealed under another key, or is damaged"
            raise refuse("INTERNAL", detail, ref=ref) from None

    def mac(self, *parts: str) -> str:
        """Equal for equal parts, and nothing else about them can be told without the key."""
        return hmac.new(self._mac_key, canonical(parts), sha256).hexdigest()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)


def _key_of(path: Path) -> bytes:
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise refuse("INTERNAL", f"{path} is no key of {KEY_BYTES} bytes", path=str(path), key_bytes=KEY_BYTES)
    return key


def _make(path: Path) -> None:
    """A new key; never half a file, and of two that start at once the first one's key stays."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():
            os.link(partial, path)
    except FileExistsError:
        pass  # somebody linked theirs in between: that one is the key
    finally:
        partial.unlink()
