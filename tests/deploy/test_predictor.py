"""Answers from bundles: the right ones, in order, by whichever engine; and no torch."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

import outdo
from outdo.data import images, ngrams
from outdo.deploy import bundle, engines
from outdo.deploy.bundle import Bundle
from outdo.deploy.predictor import BundlePredictor
from outdo.errors import BundleError, DataError, UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTDO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(brightness, size=(24, 40), form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(file, form)
    return file.getvalue()


@pytest.fixture
def files(tmp_path):
    made = []
    for i, brightness in enumerate((10, 240, 128, 250)):
        made.append(tmp_path / f"{i}.png")
        made[-1].write_bytes(picture(brightness))
    return made


def opened(folder, kind="image", engine="onnxruntime", **said):
    return BundlePredictor(Bundle.open(tiny.make_bundle(folder, kind, **said)), engine=engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
def test_images_are_answered(tmp_path, files, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = opened(tmp_path, engine=engine)
    answers = model.predict(files)
    assert [a["label"] for a in answers] == ["cat", "dog", "dog", "dog"]
    assert [a["input"] for a in answers] == [str(f) for f in files]
    assert [a["sure"] for a in answers] == [True, True, False, True]
    assert all(abs(sum(a["probabilities"].values()) - 1) < 1e-6 for a in answers)
    assert answers[0]["probabilities"]["cat"] == answers[0]["probability"]


def test_load_opens_bundles_packed_and_unpacked(tmp_path, files):
    import zipfile

    path = tiny.make_bundle(tmp_path)
    with zipfile.ZipFile(path) as packed:
        packed.extractall(tmp_path / "folder")
    one, other = (outdo.load(p).predict(files) for p in (path, tmp_path / "folder"))
    assert one == other


def test_pixels_are_those_of_training(tmp_path):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (90, 70, 3), np.uint8)).save(file, "JPEG")
    model = opened(tmp_path, input={"height": 16, "width": 16, "fit": "crop"})
    assert (model.decode(file.getvalue()) == images.decode(file.getvalue(), (16, 16), "crop")).all()


def test_pixels_that_were_not_decoded_here_are_fitted(tmp_path):
    model = opened(tmp_path, classes=("dark", "grey", "light"))
    raw = np.full((50, 20, 3), 128, np.uint8)
    assert model.probabilities([raw, raw[:16, :16]]).argmax(1).tolist() == [1, 1]


@pytest.mark.parametrize("data", [b"", b"nonsense", picture(9)[:40], b"%PDF-1.4", "a text"])
def test_what_is_no_image_is_refused(tmp_path, data):
    with pytest.raises(DataError):
        opened(tmp_path).decode(data)


def test_unreadable_inputs_are_told_in_their_place(tmp_path, files):
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    model = opened(tmp_path)
    given = [files[0], tmp_path / "bad.png", files[1], tmp_path / "nowhere.png"]
    answers = list(model.stream(given))
    assert [a.get("label") for a in answers] == ["cat", None, "dog", None]
    assert "not an image" in answers[1]["error"]
    with pytest.raises(DataError, match=r"bad\.png cannot be read"):
        model.predict(given)


def test_many_inputs_are_answered_one_by_one_alike(tmp_path, monkeypatch):
    model = opened(tmp_path, "text")
    texts = [" ".join(str(i % 7) for _ in range(i % 13)) for i in range(150)]
    together = model.probabilities([model.decode(t) for t in texts])
    alone = np.concatenate([model.probabilities([model.decode(t)]) for t in texts])
    assert np.allclose(together, alone, atol=1e-6)
    assert [a["label"] for a in model.stream(texts)] == [model.classes[i] for i in alone.argmax(1)]


def test_texts_are_cut_as_in_training(tmp_path):
    model = opened(tmp_path, "text")
    ids = model.decode("word " * 100)
    assert len(ids) == 32
    assert ids[-1] == 2, "the last token is kept"
    assert len(model.decode("")) == 2


@pytest.mark.parametrize("data", [b"\xff\xfe", "\ud800", "x" * 1_000_001])
def test_what_is_no_text_is_refused(tmp_path, data):
    with pytest.raises(DataError):
        opened(tmp_path, "text").decode(data)


def test_no_torch(tmp_path, files):
    program = ("import sys\nfor name in ('torch', 'scipy', 'pyarrow', 'onnx'): sys.modules[name] = None\n"
               "import outdo\nprint(outdo.load(sys.argv[1]).predict(sys.argv[2:])[0]['label'])")
    for kind, said in (("image", str(files[0])), ("text", "hello")):
        path = tiny.make_bundle(tmp_path, kind)
        out = subprocess.run([sys.executable, "-c", program, str(path), said], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        assert out.stdout.strip() in ("cat", "dog")


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_engine_is_told_the_nearest(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'onnxruntime'"):
        opened(tmp_path, engine="onxruntime")


def test_the_fastest_engine_is_remembered(tmp_path, monkeypatch, cache):
    path = tiny.make_bundle(tmp_path)
    first = BundlePredictor(Bundle.open(path)).choice
    assert len(list((cache / "engines").iterdir())) == 1
    monkeypatch.setattr(engines, "measured", lambda *_: pytest.fail("measured again"))
    assert BundlePredictor(Bundle.open(path)).choice == first


def test_a_damaged_memory_is_measured_anew(tmp_path, cache):
    path = tiny.make_bundle(tmp_path)
    BundlePredictor(Bundle.open(path))
    file = next((cache / "engines").iterdir())
    for damage in ("", "[]", '{"choice": {"engine": "none"}}'):
        file.write_text(damage)
        assert BundlePredictor(Bundle.open(path)).choice.engine in engines.ENGINES


def test_an_engine_that_rounds_is_used_only_where_labels_were_found_to_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda name: True)
    unproved = Bundle.open(tiny.make_bundle(tmp_path))
    proved = Bundle.open(tiny.make_bundle(tmp_path, name="p", parity={"float32": {"openvino-bfloat16": {}}}))
    tried = [{choice.engine for choice in engines.candidates(one, None)} for one in (unproved, proved)]
    assert tried == [{"onnxruntime", "openvino"}, set(engines.ENGINES)]


def test_bfloat16_answers_roughly_the_same(tmp_path, files):
    pytest.importorskip("openvino")
    exact, rounded = (opened(tmp_path, engine=engine).predict(files) for engine in ("openvino", "openvino-bfloat16"))
    off = [abs(one["probabilities"]["cat"] - other["probabilities"]["cat"])
           for one, other in zip(exact, rounded, strict=True)]
    assert max(off) < engines.TOLERANCE


class Liar:
    """Faster than any engine, and wrong."""

    def __init__(self, model, threads):
        pass

    def run(self, feed):
        return np.full((len(next(iter(feed.values()))), 2), 0.5, np.float32)


def test_an_engine_that_answers_wrong_is_not_used(tmp_path, monkeypatch):
    model = opened(tmp_path)
    expected = model._engine.run(model._reader.example(engines.LARGER)).tolist()
    monkeypatch.setattr(engines, "ENGINES", {"onnxruntime": engines.OnnxRuntime, "liar": Liar})
    monkeypatch.setattr(engines, "installed", lambda name: True)
    assert opened(tmp_path, engine="auto", name="naive").choice.engine == "liar"
    assert opened(tmp_path, engine="auto", expected={"float32": expected}).choice.engine == "onnxruntime"
    wrong = np.roll(expected, 1, 1).tolist()
    with pytest.raises(BundleError, match="no engine answers"):
        opened(tmp_path, engine="auto", expected={"float32": wrong})


def test_a_model_that_no_engine_can_read_is_told(tmp_path):
    path = tiny.make_bundle(tmp_path)
    about = {k: v for k, v in Bundle.open(path).about.items() if k not in ("members", "version", "schema")}
    unknown = helper.make_node("NoSuchThing", ["pixels"], ["probabilities"])
    renamed = tiny.image_model(2).replace(b"pixels", b"pixies")
    unknown = tiny.packed([unknown], {}, ("pixels", 2, ["b", 16, 16, 3]), 2, check=False)
    for model in (unknown, renamed, b"", b"\x08\x09"):
        bundle.write(path, about, {"model.onnx": model})
        for engine in ("onnxruntime", "openvino"):
            with pytest.raises(BundleError, match=f"{engine} cannot run"):
                BundlePredictor(Bundle.open(path), engine=engine)


def test_a_model_of_other_classes_is_refused(tmp_path):
    path = tiny.make_bundle(tmp_path)
    about = {k: v for k, v in Bundle.open(path).about.items() if k not in ("members", "version", "schema")}
    bundle.write(path, about, {"model.onnx": tiny.image_model(5)})
    with pytest.raises(BundleError, match="does not answer with probabilities of its classes"):
        BundlePredictor(Bundle.open(path), engine="onnxruntime")


@pytest.mark.parametrize("said", [{}, {"height": 0, "width": 16, "fit": "crop"},
                                  {"height": "a", "width": 1, "fit": "x"},
                                  {"height": 10**6, "width": 10**6, "fit": "crop"}])
def test_a_manifest_that_does_not_say_how_to_read_is_refused(tmp_path, said):
    with pytest.raises(BundleError):
        opened(tmp_path, input=said)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.lists(st.integers(0, 40), max_size=9), min_size=1, max_size=6))
def test_counted_buckets_are_those_of_training(texts):
    text = pytest.importorskip("outdo.backbones._text")
    rows = np.full((len(texts), 9), -1)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = ids
    which, often = ngrams.counted(rows)
    found = np.zeros((len(texts), ngrams.BUCKETS))
    for i in range(len(texts)):
        known = which[i] >= 0
        assert len(np.unique(which[i][known])) == known.sum(), "each once"
        assert not often[i][~known].any()
        found[i, which[i][known]] = often[i][known]
    assert (found == text.hashed_counts(rows).toarray()).all()
