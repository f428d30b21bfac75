"""Text encoders: transformers of several designs, the embedded weights, folders."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from outdo import plugins
from outdo.backbones import _layers, _text, text
from outdo.data import inputs
from outdo.errors import BackboneError
from outdo.training.features import Features

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "vocab_size": 100, "max_position_embeddings": 64}
CONFIGS = {
    "bert": transformers.BertConfig(**SMALL),
    "roberta": transformers.RobertaConfig(**SMALL, pad_token_id=1),
    "distilbert": transformers.DistilBertConfig(dim=32, hidden_dim=64, n_layers=4, n_heads=4, vocab_size=100),
    "mpnet": transformers.MPNetConfig(**SMALL, pad_token_id=1),
    "electra": transformers.ElectraConfig(**SMALL, embedding_size=16),
    "deberta-v2": transformers.DebertaV2Config(**SMALL, relative_attention=True, position_buckets=16,
                                               pos_att_type=["p2c", "c2p"], share_att_key=True),
    "modernbert": transformers.ModernBertConfig(**SMALL, pad_token_id=0, global_attn_every_n_layers=2,
                                                local_attention=4),
}


def batch():
    ids = torch.tensor([[2, 11, 12, 13, 14, 15, 16, 3], [2, 21, 22, 3, 0, 0, 0, 0]])
    mask = torch.tensor([[True] * 8, [True] * 4 + [False] * 4])
    return ids, mask


@pytest.mark.parametrize("name", CONFIGS)
def test_any_encoder_is_cut_at_its_layers(name):
    """Local and global attention, relative positions, rotary ones: the model's own forward hands them to the layers."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[name]).eval()
    layers = _layers.Layers(model, _layers.find_layers(model))
    assert layers.depth == 5
    ids, mask = batch()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
        for cut in range(6):
            middle = layers.run(ids, mask, 0, cut)
            found = layers.run(middle, mask, cut, 5)[mask]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any("forward" in m.__dict__ or m._forward_pre_hooks for m in model.modules()), "nothing is left behind"


def test_shared_layers_are_one_block():
    """ALBERT calls one layer many times: there is nothing between its calls that a cut could train."""
    model = transformers.AutoModel.from_config(transformers.AlbertConfig(**SMALL, embedding_size=16)).eval()
    layers = _layers.Layers(model, _layers.find_layers(model))
    assert layers.depth == 1
    ids, mask = batch()
    assert layers.run(ids, mask, 0, 1).shape == (2, 8, 32)


def test_what_follows_the_layers_belongs_to_the_last_block(tmp_path):
    """ModernBERT ends in a norm of its own."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS["modernbert"])
    backbone = _text.TextBackbone("x", model, None, {"max_length": 32}, tokenise=None, padding=0,
                                  pooling=_text.Pooling())
    last = {id(p) for p in backbone.block_parameters(4)}
    assert id(model.final_norm.weight) in last
    assert id(model.embeddings.tok_embeddings.weight) not in last
    assert id(model.embeddings.tok_embeddings.weight) in {id(p) for p in backbone.block_parameters(0)}


# ── the embedded weights ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def embedded():
    return plugins.load("backbones", "text").load("all-MiniLM-L6-v2")


def rows_of(backbone, texts):
    ids = backbone.tokenise(texts)
    return np.array([i + [-1] * (max(map(len, ids)) - len(i)) for i in ids], np.int32)


def test_embedded_weights_answer_as_transformers_does(embedded):
    texts = ["How do I activate my card?", "why", "I was charged twice for the same transfer, and want one back."]
    folder = text.find("all-MiniLM-L6-v2")
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    found = embedded.features(rows_of(embedded, texts))
    torch.testing.assert_close(found["last"], mean / mean.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["pools"][:, -384:], mean, rtol=1e-4, atol=1e-5)
    assert embedded.feature_sets == {"last": 384, "pools": 3 * 384}


def test_embedded_weights_understand(embedded):
    card, cash, dog = embedded.features(rows_of(embedded, [
        "my card was stolen", "somebody took my bank card", "the dog sleeps on the sofa"]))["last"]
    assert card @ cash > 0.6 > card @ dog + 0.3


def test_embedded_weights_are_pinned(embedded, monkeypatch):
    assert embedded.origin.licence == "apache-2.0"
    assert embedded.preprocessing()["max_length"] == 256
    monkeypatch.setattr(text, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(BackboneError, match="not the weights file that outdo knows"):
        text.PLUGIN.load("all-MiniLM-L6-v2")


def test_rows_are_cut_to_the_longest_text_of_the_batch(embedded):
    rows = np.full((2, 64), -1, np.int32)
    rows[0, :5], rows[1, :3] = [101, 7592, 2088, 999, 102], [101, 7592, 102]
    state = embedded.prepare(rows)
    assert state["x"].shape == state["mask"].shape == (2, 5)
    assert state["mask"].sum(1).tolist() == [5, 3]
    assert embedded.prepare(rows, 4)["x"].shape == (2, 4)
    assert embedded.prepare(np.full((2, 64), -1, np.int32))["x"].shape == (2, 1)


def test_what_is_padded_holds_the_models_own_padding_token():
    model = transformers.AutoModel.from_config(CONFIGS["roberta"])
    backbone = _text.TextBackbone("x", model, None, {"max_length": 32}, tokenise=None, padding=1,
                                  pooling=_text.Pooling())
    assert backbone.prepare(np.array([[5, 6, 7], [5, -1, -1]], np.int32))["x"].tolist() == [[5, 6, 7], [5, 1, 1]]


# ── folders and names ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT as transformers saves it, with the embedded tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.BertConfig(**{**SMALL, "vocab_size": 30522}))
    model.save_pretrained(folder)
    shutil.copy(text.find("all-MiniLM-L6-v2") / "tokenizer.json", folder)
    return folder


def test_a_folder_is_a_backbone(folder):
    assert text.PLUGIN.offers(str(folder))
    backbone = text.PLUGIN.load(str(folder))
    assert backbone.depth == 5
    assert backbone.origin.licence is None
    assert backbone.preprocessing()["max_length"] == 64, "no more tokens than there are positions"
    assert backbone.pooling == _text.Pooling("mean", False)
    assert torch.isfinite(backbone.features(rows_of(backbone, ["hello there"]))["last"]).all()


def test_a_folder_says_how_to_pool_and_its_licence(folder, tmp_path):
    said = shutil.copytree(folder, tmp_path / "said")
    (said / "1_Pooling").mkdir()
    (said / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (said / "modules.json").write_text(json.dumps([
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]))
    (said / "README.md").write_text("---\nlicense: mit\n---\n# Model")
    backbone = text.PLUGIN.load(str(said))
    assert backbone.pooling == _text.Pooling("first", True)
    assert backbone.origin.licence == "mit"


@pytest.mark.parametrize("change", ["pooling", "activation"])
def test_features_of_the_same_weights_used_otherwise_are_not_taken_from_the_cache(change, folder, tmp_path):
    def features(cache):
        backbone = text.PLUGIN.load(str(own))
        encoded = backbone.encode(inputs.texts(["hello there", "you"]), None)
        return Features(backbone, encoded, cache).pooled(np.arange(2))["last"]

    own = shutil.copytree(folder, tmp_path / "own")
    first = features(tmp_path / "cache")
    if change == "pooling":
        (own / "1_Pooling").mkdir()
        (own / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
        said = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
        (own / "modules.json").write_text(json.dumps(said))
    else:
        config = json.loads((own / "config.json").read_text())
        (own / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    found = features(tmp_path / "cache")
    assert not np.allclose(found, first, atol=1e-3)
    assert np.array_equal(found, features(None))


def test_pickled_weights_are_refused(folder, tmp_path):
    bad = shutil.copytree(folder, tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    torch.save({}, bad / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="no weights at"):
        text.PLUGIN.load(str(bad))


def test_code_in_a_folder_is_not_run(folder, tmp_path):
    bad = shutil.copytree(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (bad / "config.json").write_text(json.dumps(config))
    (bad / "code.py").write_text("raise SystemExit('run')")
    with pytest.raises(BackboneError, match="does not hold an encoder"):
        text.PLUGIN.load(str(bad))


def test_damaged_weights(folder, tmp_path):
    bad = shutil.copytree(folder, tmp_path / "bad")
    (bad / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BackboneError, match="does not hold an encoder"):
        text.PLUGIN.load(str(bad))


def test_a_missing_tokenizer(folder, tmp_path):
    bad = shutil.copytree(folder, tmp_path / "bad")
    (bad / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"has no tokenizer.json.*save_pretrained"):
        text.PLUGIN.load(str(bad))


def test_offline_the_hub_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match=r"config.json of 'FacebookAI/roberta-base'.*start from 'all-MiniLM-L6-v2'"):
        text.PLUGIN.load("FacebookAI/roberta-base")


# ── lexical counts ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(arrays.arrays(np.int32, (3, 6), elements=st.integers(-1, 50_000)))
def test_lexical_counts_are_those_of_a_dictionary(rows):
    """Against counting one by one; a pair needs two tokens side by side."""
    rows = np.array([sorted(row, key=lambda token: token < 0) for row in rows], np.int32)  # padding at the end
    counts = _text.hashed_counts(rows)
    for row, found in zip(rows, counts, strict=True):
        tokens = [int(t) for t in row if t >= 0]
        keys = tokens + [(a + 1 << 32) | b for a, b in itertools.pairwise(tokens)]
        expected = np.zeros(_text.BUCKETS)
        for key in keys:
            expected[(key * 0x9E3779B97F4A7C15) % 2**64 >> 48] += 1
        assert np.array_equal(found.toarray()[0], expected)


def test_lexical_counts_tell_word_order(embedded):
    a, b, c = _text.hashed_counts(rows_of(embedded, ["dog bites man", "man bites dog", "dog bites man"])).toarray()
    assert np.array_equal(a, c)
    assert not np.array_equal(a, b)
