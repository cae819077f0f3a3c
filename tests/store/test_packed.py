"""Documents at rest: packed small, the same again, and readable whatever they were packed with."""

import hashlib
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.store import packed
from controlplane.store.packed import pack, unpack

RELEASED = {"dictionary_1.txt": "c8d0d99ab28b2cea3c4872a2cc902de507848aa0822678de46833823bf5ff9c8"}


@given(st.text())
def test_a_document_is_the_same_again(document: str) -> None:
    """Whatever text it is; and what was kept as text, or as its bytes, is read as it is."""
    assert unpack(pack(document)) == document
    assert unpack(document) == document
    if not document.startswith("x"):  # no JSON does
        assert unpack(document.encode()) == document


def test_what_was_released_is_never_changed() -> None:
    """A dictionary that documents were packed with stays as it was, to the byte."""
    folder = Path(packed.__file__).parent
    assert {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in folder.glob("dictionary_*.txt")} == RELEASED
    assert len(packed.DICTIONARIES) == len(RELEASED)


def test_a_plan_is_a_fifth_of_its_text(plan_of: Any) -> None:
    """Of one agent; of many it is a twentieth, because one agent's fields are the next one's dictionary."""
    one, many = plan_of(1), plan_of(100)
    assert len(pack(one)) * 5 <= len(one)
    assert len(pack(many)) * 20 <= len(many)


@pytest.fixture
def plan_of() -> Any:
    """Texts like those of plans, with names that nobody foresees."""
    found = random.Random(1)

    def text(agents: int) -> str:
        claims = []
        for number in range(agents):
            name = f"{found.getrandbits(32):x}"
            claims.append(
                {
                    "claim_id": f"c{number}",
                    "subject": {"kind": "Agent", "namespace": "default", "name": name},
                    "measure": "condition.Ready",
                    "expected": {"value": "true"},
                    "fidelity": "exact",
                    "basis": "computed",
                    "verify_within_s": 30.0,
                    "probe": {"operation": "agents.get", "arguments": {"namespace": "default", "name": name}},
                }
            )
        return orjson.dumps({"plan_id": f"plan_{found.getrandbits(64):x}", "claims": claims}).decode()

    return text
