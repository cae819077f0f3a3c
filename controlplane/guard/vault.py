"""Secrets at rest: AES-256-GCM under a key file that only its owner reads.

What a value is sealed for (its namespace and reference) is authenticated with it, so a ciphertext
moved to another name does not open. Values are compared by a MAC under a key of its own, derived
from the same file; without the file, neither says anything about a value. A value that was sealed for
a plan expires with the plan; a commit binds it to its secret; one that a newer value replaced is kept
until it can no longer be taken back. No value is in a log, an error or a repr.
"""

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select, update
from sqlmodel import Session, col

from controlplane.resources.problems import refuse
from controlplane.store.tables import SecretValueRow
from controlplane.store.unit import Unit
from schemas.base import canonical

KEY_BYTES = 32
NONCE_BYTES = 12
_KEEP = (
    "INSERT INTO secret_value (ref, namespace, nonce, ciphertext, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (ref) DO UPDATE SET expires_at = excluded.expires_at"
    " WHERE secret_value.expires_at < excluded.expires_at"
)


@dataclass(frozen=True)
class Sealed:
    """One value as it is stored."""

    ref: str
    namespace: str
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


class Vault:
    """Seals and opens under one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(_derived(key, b"steward secrets: encryption"))
        self._mac_key = _derived(key, b"steward secrets: comparison")

    @classmethod
    def at(cls, path: Path) -> "Vault":
        """The vault of a key file, which is made 0600 when there is none."""
        return cls(_key_of(path))

    def seal(self, namespace: str, ref: str, value: str) -> Sealed:
        """The value, readable by this vault alone, at this place alone."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Sealed(ref, namespace, nonce, self._cipher.encrypt(nonce, value.encode(), _place(namespace, ref)))

    def open(self, sealed: Sealed) -> str:
        """The value; raises INTERNAL when the key or the place is another."""
        place = _place(sealed.namespace, sealed.ref)
        try:
            return self._cipher.decrypt(sealed.nonce, sealed.ciphertext, place).decode()
        except InvalidTag:
            detail = f"the secret value {sealed.ref} was sealed under another key, or is damaged"
            raise refuse("INTERNAL", detail, ref=sealed.ref) from None

    def mac(self, *parts: str) -> str:
        """Equal for equal parts, and nothing else about them can be told without the key."""
        return hmac.new(self._mac_key, canonical(parts), sha256).hexdigest()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)


def _place(namespace: str, ref: str) -> bytes:
    return canonical([namespace, ref])


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


def keep(sealed: Sealed, now: float, expires_at: float) -> Unit:
    """Store a value for a plan, until the plan expires; stored already, it stays at least as long."""
    row = (sealed.ref, sealed.namespace, sealed.nonce, sealed.ciphertext, now, expires_at)
    return Unit().raw(_KEEP, row)


def bind(refs: Sequence[str], uid: str) -> Unit:
    """The values belong to a secret now. Conflicts when one of them is gone."""
    unit = Unit()
    for ref in refs:
        statement = update(SecretValueRow).where(col(SecretValueRow.ref) == ref)
        unit = unit.run(statement.values(bound_to=uid, expires_at=None), 1)
    return unit


def let_go(uid: str, kept: Sequence[str], expires_at: float) -> Unit:
    """The secret's values other than the kept ones expire; until then a revert may bind them again."""
    statement = update(SecretValueRow).where(
        col(SecretValueRow.bound_to) == uid,
        col(SecretValueRow.ref).not_in(list(kept)),
        col(SecretValueRow.expires_at).is_(None),
    )
    return Unit().run(statement.values(expires_at=expires_at))


def read(session: Session, ref: str) -> Sealed | None:
    """The stored value of a reference."""
    row = SecretValueRow
    query = select(col(row.ref), col(row.namespace), col(row.nonce), col(row.ciphertext)).where(col(row.ref) == ref)
    found = session.connection().execute(query).first()
    return Sealed(found[0], found[1], bytes(found[2]), bytes(found[3])) if found else None
