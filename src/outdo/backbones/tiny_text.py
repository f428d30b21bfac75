"""`tiny-text`: a transformer of a few thousand weights for tests; a word's id is its hash. Seeded, no download."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from outdo.contracts import Kind, Origin

NAME = "tiny-text"
VOCABULARY, WIDTH, LAYERS, LONGEST = 1024, 32, 3, 32


class TinyText:
    kind: Kind = "text"
    summary = "a tiny seeded transformer for tests"
    default = NAME

    def names(self) -> list[str]:
        return [NAME]

    def offers(self, name: str) -> bool:
        return name == NAME

    def load(self, name: str, *, preprocessing: Mapping[str, Any] | None = None) -> Any:
        from outdo.backbones import _text, _weights

        module = network()
        origin = Origin("seed 0", _weights.hash_tensors(module.state_dict()), "apache-2.0")
        own = {"kind": "text", "max_length": LONGEST, "tokenizer": "crc32"}
        said = _weights.overriding(own, preprocessing)
        return _text.TextBackbone(NAME, module, origin, said, padding=0,
                                  tokenise=tokenise, pooling=_text.Pooling())


def tokenise(texts: Sequence[str]) -> list[list[int]]:
    """1, then a hash of every word (3 and up), then 2."""
    words = (re.findall(r"\w+", text.lower()) for text in texts)
    return [[1, *(3 + zlib.crc32(w.encode()) % (VOCABULARY - 3) for w in row), 2] for row in words]


def network() -> Any:
    """Embedding, layers, final norm; called like a transformers encoder."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            self.places = nn.Embedding(LONGEST, WIDTH)
            self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            x = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
            for layer in self.layer:
                x = layer(x, attention_mask[:, None, None, :].bool())
            return SimpleNamespace(last_hidden_state=self.norm(x))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.widen, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            q, k, v = self.mix(self.norm_1(hidden_states)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = hidden_states + self.out(mixed.transpose(1, 2).flatten(2))
            return x + self.narrow(nn.functional.gelu(self.widen(self.norm_2(x))))  # type: ignore[no-any-return]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


PLUGIN = TinyText()
