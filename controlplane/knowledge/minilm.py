"""all-MiniLM-L6-v2 by numpy: the encoder of BERT (Devlin et al. 2018), six layers of twelve heads, mean pooling, unit
length, as sentence-transformers runs it.

The weights are mapped, not copied, so that processes share them.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Array = NDArray[np.float32]
TOKENS_MAX = 256
_LAYERS, _HEADS, _WIDTH = 6, 12, 32
_TYPES = {"F32": "<f4", "I64": "<i8"}
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Model:
    """The weights by their names, and the tokenizer."""

    def __init__(self, weights: Path, words: Path) -> None:
        self._weights = _mapped(weights)
        self._tokenizer: Any = Tokenizer.from_file(str(words))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Array:
        """One row for each text, of unit length."""
        tokens = self._tokenizer.encode_batch(list(texts))
        ids = np.array([it.ids for it in tokens])
        mask = np.array([it.attention_mask for it in tokens], np.float32)
        x = self._words(ids)
        hidden = ((1 - mask) * np.float32(-1e9))[:, None, None, :]
        for layer in range(_LAYERS):
            x = self._layer(f"encoder.layer.{layer}.", x, hidden)
        means = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        unit: Array = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _words(self, ids: NDArray[Any]) -> Array:
        named = partial("embeddings.{}_embeddings.weight".format)
        at, of = self._weights[named("position")][: ids.shape[1]], self._weights[named("token_type")][0]
        return self._normal(self._weights[named("word")][ids] + at + of, "embeddings.LayerNorm")

    def _layer(self, at: str, x: Array, hidden: Array) -> Array:
        batch, length, _ = x.shape

        def heads(name: str) -> Array:
            y = self._linear(x, f"{at}attention.self.{name}")
            return y.reshape(batch, length, _HEADS, _WIDTH).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(_WIDTH**0.5) + hidden
        weighed = np.exp(scores - scores.max(-1, keepdims=True))
        weighed /= weighed.sum(-1, keepdims=True)
        seen = (weighed @ heads("value")).transpose(0, 2, 1, 3).reshape(x.shape)
        x = self._normal(self._linear(seen, f"{at}attention.output.dense") + x, f"{at}attention.output.LayerNorm")
        inner = gelu(self._linear(x, f"{at}intermediate.dense"))
        return self._normal(self._linear(inner, f"{at}output.dense") + x, f"{at}output.LayerNorm")

    def _linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return y

    def _normal(self, x: Array, name: str) -> Array:
        mean, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        scale, shift = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        y: Array = (x - mean) / np.sqrt(spread + np.float32(1e-12)) * scale + shift
        return y


def _mapped(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file: a length, a JSON header that says where each is, the bytes."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int(raw[:8].view("<u8")[0])
    header: dict[str, Any] = json.loads(bytes(raw[8:start]))
    found = {}
    for name, at in header.items():
        if name != "__metadata__":
            first, last = at["data_offsets"]
            found[name] = raw[start + first : start + last].view(_TYPES[at["dtype"]]).reshape(at["shape"])
    return found


def gelu(x: Array) -> Array:
    """x times the normal distribution's weight below x."""
    y: Array = (x * 0.5 * (1 + erf(x / 2**0.5))).astype(np.float32)
    return y


def erf(x: NDArray[Any]) -> NDArray[np.float64]:
    """The error function, within 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    size = np.abs(x, dtype=np.float64)
    t = 1 / (1 + 0.3275911 * size)
    sum_ = t * (_ERF[0] + t * (_ERF[1] + t * (_ERF[2] + t * (_ERF[3] + t * _ERF[4]))))
    found: NDArray[np.float64] = np.sign(x) * (1 - sum_ * np.exp(-size * size))
    return found
