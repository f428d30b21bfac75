"""What is exported answers as the run does, or is not written."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import image_model, make_keys

import outdo
from outdo import backbones, cli, plugins
from outdo.backbones import _image
from outdo.backbones._export import Resize
from outdo.contracts import Origin
from outdo.data import inputs
from outdo.deploy import export as exporting
from outdo.deploy import onnx, quantize
from outdo.deploy.bundle import Bundle, in_memory
from outdo.deploy.engines import ENGINES, ROUNDING
from outdo.deploy.export import export
from outdo.deploy.predictor import BundlePredictor, reader_of
from outdo.errors import BundleError, DataError, RunError, UserError
from outdo.evaluation.thresholds import LEVELS, thresholds
from outdo.training.model import Constant, Model, Neighbours, Network, unit
from outdo.training.probe import Lexical, Linear

TRACE = onnx.export
WORDS = {"card": "my new card has not come", "cash": "the machine kept my money", "loan": "can I borrow for a house"}


def write_photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, brightness in (("cat", 80), ("dog", 170)):
        for i in range(20):
            path = folder / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.normal(brightness, 25, (40 + i, 44, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def write_texts(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [(label, " ".join(rng.permutation([*text.split(), str(i)])))
            for i in range(20) for label, text in WORDS.items()]
    (folder / "texts.csv").write_text("kind,said\n" + "\n".join(map(",".join, rows)), encoding="utf-8")
    return folder / "texts.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs, judged by their accuracy alone, and a cache of their own. A run's graph is traced once."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTDO_CACHE", str(folder / "cache"))
        patch.setattr(onnx, "export", once(onnx.export))
        every = plugins.load_all
        patch.setattr(plugins, "load_all", lambda kind: {"accuracy": plugins.load("axes", "accuracy")}
                      if kind == "axes" else every(kind))
        outdo.improve(write_photos(folder / "photos"), minutes=0.02, start_from="tiny-image", out=folder / "image")
        data = outdo.read(write_texts(folder), input_column="said", label_column="kind")
        outdo.improve(data, minutes=0.02, start_from="tiny-text", out=folder / "text")
        yield folder


def once(trace):
    traced = {}

    def call(model, rows):
        if model.backbone.kind not in traced:
            traced[model.backbone.kind] = trace(model, rows)
        return traced[model.backbone.kind]

    return call


def given_to(kind: str, place: Path) -> list[str]:
    if kind == "text":
        return [*WORDS.values(), "", "x"]
    return [str(p) for p in sorted((place / "photos").rglob("*.png"))]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_bundle_answers_as_the_run_does(kind, place, capsys):
    private, public = make_keys(place)
    path = place / f"{kind}.outdo"
    assert cli.main(["export", str(place / kind), str(path), "--sign", str(private)]) == 0
    told = capsys.readouterr().out
    assert "100.00% of" in told
    opened = Bundle.open(path, trust=public)
    about = opened.about
    assert about["parity"]["float32"]["onnxruntime"]["labels_agree"] == 1
    if find_spec("starlette"):
        assert "over HTTP: 100.00% of" in told
        assert about["parity"]["http"]["n"] == len(json.loads((place / kind / "stages/splits.json").read_text())
                                                   ["validation"])
        assert about["parity"]["http"]["largest_difference"] < 1e-5
    assert about["backbone"]["licence"] == "apache-2.0"
    assert about["thresholds"]
    assert about["int8"]["why"]
    report = json.loads(opened.read("report.json"))
    assert "/" not in report["data"]["source"]
    run = outdo.load(place / kind)
    run.model.backbone.precision = "float32"  # a run rounds to bfloat16 where that is faster
    shipped = in_memory({**about, "models": {"float32": "model.onnx"}}, {n: opened.read(n) for n in opened.names()})
    mine, theirs = (model.predict(given_to(kind, place)) for model in (BundlePredictor(shipped, "onnxruntime"), run))
    for a, b in zip(mine, theirs, strict=True):
        assert a["label"] == b["label"]
        assert list(a["probabilities"].values()) == pytest.approx(list(b["probabilities"].values()), abs=1e-4)


# ── every part ───────────────────────────────────────────────────────────────────────────────────────────────────────


def some_parts(backbone, classes=3):
    """Every sort of part at once, each with a share."""
    rng, sets = np.random.default_rng(0), backbone.feature_sets
    last = sets["last"]

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    head = torch.nn.Linear(last, classes)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    parts = [(0.7, Linear(tuple(sets), numbers(sum(sets.values()), classes) / 4, numbers(classes))),
             (0.4, Linear(("last",), numbers(last, classes), numbers(classes))),
             (0.3, Neighbours(unit(numbers(30, last)), rng.integers(0, classes, 30), 4, classes)),
             (0.9, Constant(numbers(classes))),
             (0.5, Network(backbone, head, 1, 24 if backbone.kind == "image" else None))]
    if backbone.kind == "text":
        columns = np.unique(rng.integers(0, 65536, 30_000))
        parts.append((0.8, Lexical(columns, rng.random(len(columns)).astype(np.float32) + 1,
                                   4 * numbers(len(columns), classes), numbers(classes))))
    return parts


@pytest.fixture(scope="module", params=["image", "text"])
def mixture(request):
    """(a model of every part, its bundle in memory, what to ask)."""
    kind = request.param
    backbone = backbones.load(f"tiny-{kind}", kind, preprocessing={"store": [32, 32]} if kind == "image" else None)
    model = Model("mixture", plugins.load("tasks", f"{kind}_classification"), ("a", "b", "c"), backbone,
                  some_parts(backbone), temperature=1.7)
    graph = TRACE(model, (32, 32) if kind == "image" else None)
    about = {**exporting.facts(Path(), model, "mixture"), "models": {"float32": "model.onnx"}}
    return model, in_memory(about, {"model.onnx": graph}), graph


@pytest.mark.parametrize("engine", [name for name in ENGINES if name not in ROUNDING])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_part_is_in_the_graph(mixture, engine, count, tmp_path):
    if engine == "openvino":
        pytest.importorskip("openvino")
    model, bundle, _ = mixture
    if model.backbone.kind == "image":
        rng = np.random.default_rng(1)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((40, 30)).save(tmp_path / f"{i}.png")
        asked = [str(p) for p in sorted(tmp_path.glob("*.png"))]
        expected = model.predict(inputs.files(asked))
    else:
        asked = [" ".join(f"word{j}" for j in range(i * i % 23)) for i in range(count)]
        expected = model.predict(inputs.texts(asked))
    answers = BundlePredictor(bundle, engine=engine).predict(asked)
    found = np.array([list(a["probabilities"].values()) for a in answers])
    assert np.abs(found - expected).max() < 2e-3
    assert np.ptp(expected, axis=0).max() > 0.01 or count == 1, "the answers must differ for this to say anything"


def test_a_network_that_is_no_chain_from_its_first_pixel_is_exported():
    import timm

    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=3, num_heads=2, num_classes=5)
    said = {"size": 32, "fit": "squash", "store": [32, 32], "mean": [0.4] * 3, "std": [0.2] * 3,
            "interpolation": "bicubic"}
    backbone = _image.ImageBackbone("vit", module, Origin("none", "", None), said)
    assert backbone.chain.blocks[0].opaque
    weight = np.random.default_rng(0).normal(size=(sum(backbone.feature_sets.values()), 3)).astype(np.float32)
    part = Linear(tuple(backbone.feature_sets), weight, np.zeros(3, np.float32))
    model = Model("vit", plugins.load("tasks", "image_classification"), ("a", "b", "c"), backbone, [(1.0, part)])
    rows = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = ENGINES["onnxruntime"](TRACE(model, (32, 32)), 1).run({"pixels": rows})
    expected = model.probabilities(part({k: v.numpy() for k, v in backbone.features(rows).items()}))
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(("rows", "size", "mode"), [((32, 32), 24, "bilinear"), ((60, 48), 40, "bicubic"),
                                                    ((16, 16), 40, "bicubic"), ((16, 20), 48, "bilinear")])
def test_pixels_are_resized_as_torch_does(rows, size, mode):
    x = torch.randint(0, 256, (2, *rows, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = x.permute(0, 3, 1, 2)
    off = (Resize(rows, size, mode)(x.float()) - _image.resize(x, size, mode).float()).abs()
    assert off.max() <= 2
    assert (off > 0).float().mean() < 0.02


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_graph_that_answers_otherwise_is_not_shipped(place, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx, "export", lambda model, rows: brightness_of(rows))
    with pytest.raises(BundleError, match="does not answer as the run does"):
        export(place / "image", tmp_path / "b.outdo")
    assert not list(tmp_path.iterdir())


def test_a_server_that_answers_otherwise_is_not_shipped(place, tmp_path):
    def upside_down(predictor, inputs):
        return predictor.probabilities([predictor.decode(data) for data in inputs])[:, ::-1]

    with pytest.raises(BundleError, match="the server does not answer as its engine does"):
        export(place / "image", tmp_path / "b.outdo", int8="never", over_http=upside_down)
    assert not list(tmp_path.iterdir())


def brightness_of(rows) -> bytes:
    """A model whose dogs are cats."""
    import onnx as library

    model = library.load_from_string(image_model(2))
    for size, value in zip(model.graph.input[0].type.tensor_type.shape.dim[1:3], rows, strict=True):
        size.dim_value = value
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(library.numpy_helper.from_array(np.array([[40, 0]], np.float32), "weight"))
    return model.SerializeToString()


def test_an_engine_that_rounds_and_loses_labels_is_not_proved():
    found = {"onnxruntime": {"labels_agree": 0.9}, "openvino": {"labels_agree": 1.0}}
    for agree, left in ((0.998, False), (0.999, True)):
        parity = found | {"openvino-bfloat16": {"labels_agree": agree}}
        assert exporting.proved(parity, exporting.AGREE) == (parity if left else found)


def test_int8_that_is_worse_is_dropped_or_refused(place, monkeypatch, tmp_path):
    monkeypatch.setattr(quantize, "quantized", lambda graph, kind, feeds: [("upside down", brightness_of((32, 32)))])
    shipped = export(place / "image", tmp_path / "b.outdo")
    assert list(shipped.about["models"]) == ["float32"]
    assert "dropped: accuracy" in shipped.about["int8"]["why"]
    with pytest.raises(BundleError, match="no int8 model to ship: dropped"):
        export(place / "image", tmp_path / "c.outdo", int8="only")
    assert not (tmp_path / "c.outdo").exists()


def test_int8_that_is_slower_is_dropped(place, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "times", lambda graphs, feeds: {name: 2 - (name == "float32") for name in graphs})
    shipped = export(place / "image", tmp_path / "b.outdo")
    assert "2.00 times as long" in shipped.about["int8"]["why"]


def test_int8_alone(place, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "times", lambda graphs, feeds: {name: 1 + (name == "float32") for name in graphs})
    monkeypatch.setattr(exporting, "KEEPS", 0.0)
    shipped = export(place / "image", tmp_path / "b.outdo", int8="only")
    assert list(shipped.about["models"]) == list(shipped.about["expected"]) == ["int8"]
    assert BundlePredictor(Bundle.open(tmp_path / "b.outdo")).choice.model == "int8"


def test_what_prepares_pixels_is_not_rounded(mixture):
    model, bundle, graph = mixture
    if model.backbone.kind == "text":
        pytest.skip("texts have no pixels")
    import onnx as library

    feeds = [reader_of(bundle).example(1)]
    _, rounded = next(iter(quantize.quantized(graph, "image", feeds)))
    nodes = library.load_from_string(rounded).graph.node
    made = {name: node for node in nodes for name in node.output}
    rounded = [i for i, node in enumerate(nodes) if node.op_type == "Conv" and
               made.get(node.input[1], node).op_type == "DequantizeLinear"]
    plain = [node for node in nodes if node.op_type == "Conv" and node.input[1] not in made]
    assert len(plain) == 2, "the model looks at two sizes"
    assert {attribute.i for node in plain for attribute in node.attribute if attribute.name == "group"} == {3}
    assert len(rounded) == 24


@pytest.mark.parametrize(("break_", "said"), [
    (lambda photos: (photos / "cat").rename(photos / "lion"), "no longer holds the examples"),
    (lambda photos: photos.rename(photos.parent / "elsewhere"), "--source"),
])
def test_data_that_are_gone_are_told(place, tmp_path, break_, said):
    import shutil

    photos = Path(shutil.copytree(place / "photos", tmp_path / "photos"))
    break_(photos)
    with pytest.raises(DataError, match=said):
        export(place / "image", tmp_path / "b.outdo", source=photos, int8="never")


def test_data_that_moved_are_found_where_they_are_now(place, tmp_path):
    (place / "photos").rename(place / "moved")
    try:
        export(place / "image", tmp_path / "b.outdo", source=place / "moved", int8="never", name="pets")
    finally:
        (place / "moved").rename(place / "photos")
    assert Bundle.open(tmp_path / "b.outdo").about["name"] == "pets"


@pytest.mark.parametrize("said", [{"int8": "maybe"}, {"name": "a/b"}, {"sign": "nowhere.pem"}])
def test_mistakes_are_told_before_anything_is_computed(place, tmp_path, said, monkeypatch):
    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("began"))
    with pytest.raises(UserError):
        export(place / "image", tmp_path / "b.outdo", **said)


def test_only_runs_are_exported(tmp_path):
    with pytest.raises(RunError):
        export(tmp_path, tmp_path / "b.outdo")


# ── thresholds ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=60))
def test_above_a_threshold_that_many_answers_are_right(cases):
    confidence = np.array([0.5 + c / 42 for c, _ in cases])
    right = np.array([r for _, r in cases])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    for one in thresholds(probabilities, np.where(right, 0, 1)):
        above = confidence >= one["threshold"]
        assert above.sum() == one["n"]
        assert not above.any() or right[above].mean() >= one["precision"]
        lower = [t for t in np.unique(confidence) if t < one["threshold"]]
        assert all(right[confidence >= t].mean() < one["precision"] for t in lower), "no lower one would do"
        assert one["low"] is None or 0 <= one["low"] <= one["right"] / one["n"] + 1e-9


def test_no_confidence_is_enough_where_the_surest_are_wrong():
    found = thresholds(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([1, 0]))
    assert [one["threshold"] for one in found] == [1.0] * len(LEVELS)
