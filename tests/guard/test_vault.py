"""Secrets at rest."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.guard.vault import KEY_BYTES, Vault
from schemas.problem import Refusal

TEXT = st.text(st.characters(codec="utf-8"))


@given(TEXT)
def test_what_was_sealed_opens_again(value: str) -> None:
    """Any text comes back whole, and none of it stands in what is stored."""
    vault = Vault(b"k" * KEY_BYTES)
    nonce, ciphertext = vault.seal("sec_1", value)
    assert vault.open("sec_1", nonce, ciphertext) == value
    assert len(value) < 3 or value.encode() not in nonce + ciphertext


def test_a_value_opens_only_at_its_place_under_its_key() -> None:
    """Another reference, another key, or one changed bit: it does not open, and says nothing of the value."""
    vault = Vault(b"k" * KEY_BYTES)
    nonce, ciphertext = vault.seal("sec_1", "hunter2")
    damaged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    for other, ref, text in (
        (vault, "sec_2", ciphertext),
        (Vault(b"j" * KEY_BYTES), "sec_1", ciphertext),
        (vault, "sec_1", damaged),
    ):
        with pytest.raises(Refusal) as refused:
            other.open(ref, nonce, text)
        assert "hunter2" not in refused.value.problem.model_dump_json()


def test_the_same_value_is_never_sealed_alike() -> None:
    """Two ciphertexts of one value share nothing; its MACs are equal, under this key alone."""
    vault = Vault(b"k" * KEY_BYTES)
    assert vault.seal("sec_1", "v") != vault.seal("sec_1", "v")
    assert vault.mac("ns", "name", "key", "v") == vault.mac("ns", "name", "key", "v")
    assert vault.mac("ns", "name", "key", "v") != Vault(b"j" * KEY_BYTES).mac("ns", "name", "key", "v")
    assert vault.mac("a", "bc") != vault.mac("ab", "c")


def test_the_key_file_is_made_once_and_is_private(tmp_path: Path) -> None:
    """A second start reads the same key; wider rights are taken back; many that start at once share one key."""
    path = tmp_path / "secret.key"
    marks: list[str] = []
    threads = [threading.Thread(target=lambda: marks.append(Vault.at(path).mac("x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(marks)) == 1
    assert len(marks) == 8
    path.chmod(0o644)
    Vault.at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


def test_a_damaged_key_file_ends_the_start(tmp_path: Path) -> None:
    """It is never replaced: that would make every stored secret unreadable."""
    path = tmp_path / "secret.key"
    path.write_bytes(b"short")
    with pytest.raises(Refusal):
        Vault.at(path)
    assert path.read_bytes() == b"short"
