"""Rivals that answer something else than they should, and what is found out about those that do."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contestants import COLOURS as CLASSES
from contestants import Texts, squares
from outdo.contracts import Ground, Rival, TestSet
from outdo.errors import DataError
from outdo.evaluation import rivals
from outdo.evaluation.rivals import _example, _match, _outputs, _pixels, endpoint

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"), 48, tried=30, brighter=60)


def network(path, layout="nchw", colours="rgb", scale=1.0, shift=0.0, finish=None, order=(2, 1, 0), classes=3):
    """Right where the channel of the class is largest, if pixels come as (x / 255 - shift) / scale in this order."""
    matrix = np.zeros((3, classes), np.float32)
    for channel, code in enumerate(order):
        matrix["rgb".index(colours[channel]) if colours != "rgb" else channel, code] = 12 * scale
    shape = ["n", 3, 16, 16] if layout == "nchw" else ["n", 16, 16, 3]
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3] if layout == "nchw" else [1, 2], keepdims=0),
             helper.make_node("MatMul", ["mean", "w"], ["logits"])]
    out = "logits"
    if finish:
        nodes.append(finish if not isinstance(finish, str) else helper.make_node(finish, ["logits"], ["out"]))
        out = "out"
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind.FLOAT, shape)],
                              [helper.make_tensor_value_info(out, kind.FLOAT, ["n", classes])],
                              [onnx.numpy_helper.from_array(matrix, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def met(said, ground):
    (one,) = rivals.meet({"theirs": said}, ground)
    codes = np.array([CLASSES.index(name.split("/")[0]) for name in ground.ids])
    return one, float((one.predictions.labels == codes).mean()), "; ".join(one.about["remarks"])


# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_layout_is_seen_from_the_shape(layout, ground, tmp_path):
    _, right, remarks = met(network(tmp_path / "m.onnx", layout), ground)
    assert right == 1
    assert f", {layout}: the best of" in remarks
    assert "30 validation examples" in remarks


def test_swapped_channels_are_found_on_validation(ground, tmp_path):
    _, right, remarks = met(network(tmp_path / "m.onnx", colours="bgr"), ground)
    assert right == 1
    assert "bgr" in remarks


def test_a_wrong_colour_order_that_was_said_shows_in_validation(ground, tmp_path):
    _, right, remarks = met(network(tmp_path / "m.onnx", colours="bgr") + "?colour=rgb&classes=blue,green,red", ground)
    assert right == pytest.approx(1 / 3)
    assert "no better than always" in remarks


def test_a_wrong_order_of_classes_is_told(ground, tmp_path):
    _, right, remarks = met(network(tmp_path / "m.onnx", order=(1, 0, 2)), ground)
    assert right < 0.5
    told = remarks.split("say classes=")[1].split(";")[0]
    _, right, _ = met(f"{tmp_path / 'm.onnx'}?classes={told}", ground)
    assert right == 1


def test_classes_in_the_metadata_are_believed(ground, tmp_path):
    path = network(tmp_path / "m.onnx", order=(1, 0, 2))
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'Green', 1: 'red', 2: 'blue'}"
    onnx.save(model, path)
    _, right, _ = met(path, ground)
    assert right == 1


@pytest.mark.parametrize(("finish", "kind"), [(None, "logits"), ("Softmax", "probabilities"), ("Sigmoid", "scores")])
def test_logits_and_probabilities_are_told_apart(finish, kind, ground, tmp_path):
    one, right, remarks = met(network(tmp_path / "m.onnx", finish=finish), ground)
    assert right == 1
    assert f"its outputs are {kind}" in remarks
    assert np.allclose(one.predictions.probabilities.sum(1), 1)


def test_not_a_number_is_refused(ground, tmp_path):
    with pytest.raises(DataError, match="not a number"):
        met(network(tmp_path / "m.onnx", finish=onnx.helper.make_node("Log", ["mean"], ["out"])) + "?normalise=half",
            ground)


def test_another_number_of_classes_needs_their_names(ground, tmp_path):
    path = network(tmp_path / "m.onnx", classes=5, order=(2, 1, 0))
    with pytest.raises(DataError, match="nothing says of which"):
        met(path, ground)
    with pytest.raises(DataError, match="5 answers for each example and 2 classes"):
        met(f"{path}?classes=a,b", ground)
    (tmp_path / "names.txt").write_text("blue\ngreen\nred\nteal\nviolet\n")
    _, right, remarks = met(f"{path}?classes=names.txt", ground)
    assert right == 1
    assert "also knows teal, violet" in remarks


@pytest.mark.parametrize(("said", "words"), [
    ("?normalize=unit", "[Dd]id you mean 'normalise'"), ("?size=32", "said to take 32 x 32"),
    ("?size=big", "is no size"), ("?std=0", "is no std"), ("?mean=1,2", "is no mean"), ("?layout=chwn", "says nothing"),
    ("?output=logit", "no output 'logit'"), ("?layout=nhwc", "16 channels"), ("?classes={1:", "cannot be read"),
])
def test_options_that_make_no_sense(said, words, ground, tmp_path):
    with pytest.raises(DataError, match=words):
        met(network(tmp_path / "m.onnx") + said, ground)


def test_what_is_no_model_is_refused(ground, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04\x95 not a model")
    with pytest.raises(DataError, match="no model that ONNX Runtime can open"):
        met(str(tmp_path / "m.onnx"), ground)


@pytest.mark.parametrize("place", ["../weights.bin", "{root}/weights.bin", "link.bin"])
def test_weights_outside_the_folder_are_refused(place, ground, tmp_path):
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(network(inside / "m.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place.format(root=tmp_path)), ("length", "36")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (inside / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match="outside its folder"):
        met(str(inside / "m.onnx"), ground)


@given(st.sampled_from(list(_pixels.NORMALISE)), st.sampled_from(["rgb", "bgr"]), st.sampled_from(["nchw", "nhwc"]))
def test_a_tensor_is_what_its_way_says(normalise, colour, layout):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    mean, std = _pixels.NORMALISE[normalise]
    x = _pixels.Way((5, 7), layout, 3, "float32", (tuple(mean), tuple(std)), colour).tensor(pixels)
    first = 0 if colour == "rgb" else 2
    red = x[:, first] if layout == "nchw" else x[..., first]
    assert x.shape == ((2, 3, 5, 7) if layout == "nchw" else (2, 5, 7, 3))
    assert red * std[0] + mean[0] == pytest.approx(pixels[..., 0] / 255, abs=1e-5)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32))
def test_whatever_comes_out_becomes_probabilities(n, k, seed):
    raw = np.random.default_rng(seed).normal(0, 3, (n, k))
    found = _outputs.probabilities(raw, _outputs.kind_of(raw))
    assert found.shape == (n, max(2, k))
    assert np.allclose(found.sum(1), 1)
    if k > 1:
        assert (found.argmax(1) == raw.argmax(1)).all()


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_classes_are_matched_by_name_not_by_place(ground):
    theirs = Rival(("Red", "sea-green", "GREEN"), lambda ids, inputs: np.tile([0.5, 0.3, 0.2], (len(ids), 1)))
    one = rivals.contestant("theirs", theirs, ground)
    assert one.predictions.probabilities[0] == pytest.approx([0, 2 / 7, 5 / 7], abs=1e-6)
    remarks = "; ".join(one.about["remarks"])
    assert "does not know blue" in remarks
    assert "also knows sea-green" in remarks


def test_nothing_in_common_is_refused(ground):
    with pytest.raises(DataError, match="knows none of the classes"):
        rivals.contestant("theirs", Rival(("cat", "dog"), lambda ids, inputs: np.ones((len(ids), 2))), ground)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not a number"), (np.inf, "not a number"), (-0.1, "below 0")])
def test_answers_that_are_no_probabilities(value, words, ground):
    def answer(ids, inputs):
        out = np.full((len(ids), 3), 1 / 3)
        out[-1, 0] = value
        return out

    with pytest.raises(DataError, match=words):
        rivals.contestant("theirs", Rival(CLASSES, answer, runs=False), ground)


def test_a_wrong_shape_is_refused(ground):
    with pytest.raises(DataError, match="wrong shape"):
        rivals.contestant("theirs", Rival(CLASSES, lambda ids, inputs: np.ones((2, 3)), runs=False), ground)


@given(st.permutations(range(5)))
def test_the_best_order_undoes_a_permutation(order):
    codes = np.arange(40) % 5
    assert (_match.best_order(np.array(order)[codes], codes, 5) == order).all()


@pytest.mark.parametrize(("right", "n", "share", "chance"), [(26, 49, 0.5, True), (40, 49, 0.5, False),
                                                             (9, 9, 1.0, False), (3, 30, 1 / 3, True)])
def test_chance(right, n, share, chance):
    assert rivals.at_chance(right, n, share) is chance


def test_named_twice_and_unknown_sorts(tmp_path):
    (tmp_path / "model.onnx").touch()
    assert rivals.short(["a/x.onnx", "b/x.onnx?size=9", "http://h:1/v2/models/m", Texts([]), "/tmp/run/"]) == [
        "a/x.onnx", "b/x.onnx", "m", "Texts", "run"]
    with pytest.raises(DataError, match="named twice"):
        rivals.named([tmp_path / "model.onnx", str(tmp_path / "model.onnx")])
    with pytest.raises(DataError, match=r"[Dd]id you mean '.*model\.onnx'"):
        rivals.named([str(tmp_path / "modle.onn")])
    with pytest.raises(DataError, match=r"[Dd]id you mean '.*model\.onnx'"):
        rivals.named([str(tmp_path / "modle.onnx?size=9")])
    (tmp_path / "model.pkl").touch()
    with pytest.raises(DataError, match="of no sort that outdo knows"):
        rivals.named([str(tmp_path / "model.pkl")])


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(path, ground, ids=None, header="id,prediction", answer=lambda name: name.split("/")[0]):
    ids = ground.ids if ids is None else ids
    path.write_text("\n".join([header, *(f"{name},{answer(name)}" for name in ids)]) + "\n")
    return path


def test_answers_by_label_and_by_probability(ground, tmp_path):
    _, right, _ = met(table(tmp_path / "a.csv", ground), ground)
    assert right == 1
    lines = [json.dumps({"file": f"/data/x/{name}", "p_blue": 0.2, "p_red": 0.7, "p_green": 0.1})
             for name in ground.ids]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    one, _, _ = met(tmp_path / "b.jsonl", ground)
    assert one.predictions.probabilities[0] == pytest.approx([0.2, 0.1, 0.7])
    lines = [json.dumps({"input": name, "label": "red", "probabilities": {"red": 0.6, "blue": 0.4}})
             for name in ground.ids]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    one, _, remarks = met(tmp_path / "c.jsonl", ground)
    assert one.predictions.probabilities[0] == pytest.approx([0.4, 0, 0.6])
    assert "does not know green" in remarks


@pytest.mark.parametrize("write", [lambda name: name, lambda name: f"/home/me/{name}", lambda name: f"./{name}",
                                   lambda name: name.split("/")[1], lambda name: name.replace("/", "\\")])
def test_examples_are_found_by_id_path_or_name(write, ground, tmp_path):
    ids = [write(name) for name in ground.ids]
    path = table(tmp_path / "a.csv", ground, ids, answer=lambda name: "red")
    one, _, _ = met(path, ground)
    assert (one.predictions.labels == 2).all()


def test_the_truth_beside_the_prediction_is_not_taken_for_it(ground, tmp_path):
    path = table(tmp_path / "a.csv", ground, header="id,label,prediction", answer=lambda n: f"{n.split('/')[0]},red")
    one, _, _ = met(path, ground)
    assert (one.predictions.labels == 2).all()


def test_missing_doubled_and_strange_rows(ground, tmp_path):
    with pytest.raises(DataError, match=rf"does not answer 2 of 18 test examples.*{ground.ids[0]}"):
        met(table(tmp_path / "a.csv", ground, ground.ids[2:]), ground)
    with pytest.raises(DataError, match=rf"more than once.*{ground.ids[0]} in rows 1, 19"):
        met(table(tmp_path / "b.csv", ground, [*ground.ids, ground.ids[0]]), ground)
    with pytest.raises(DataError, match="about other examples"):
        met(table(tmp_path / "c.csv", ground, ["elsewhere/1.jpg"], answer=lambda n: "red"), ground)
    with pytest.raises(DataError, match="line 2: 'purple' is none of the classes"):
        met(table(tmp_path / "d.csv", ground, answer=lambda n: "purple"), ground)
    with pytest.raises(DataError, match="does not say which example"):
        met(table(tmp_path / "e.csv", ground, header="what,prediction"), ground)
    with pytest.raises(DataError, match="does not say what was answered"):
        met(table(tmp_path / "f.csv", ground, header="id,guess"), ground)
    with pytest.raises(DataError, match="line 2: 'nan' is no probability"):
        met(table(tmp_path / "g.csv", ground, header="id,red,blue", answer=lambda n: "nan,1"), ground)
    _, right, remarks = met(table(tmp_path / "h.csv", ground, [*ground.ids, "train/1.png"],
                                  answer=lambda n: n.split("/")[0] if n in ground.ids else "red"), ground)
    assert right == 1
    assert "1 of its rows are about other examples" in remarks


def test_a_run_s_own_predictions_are_not_taken_for_a_rival_s(ground, tmp_path):
    (tmp_path / "run.json").touch()
    (tmp_path / "predictions.parquet").touch()
    with pytest.raises(DataError, match="belongs to a run"):
        met(tmp_path / "predictions.parquet", ground)


# ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.5)
    monkeypatch.setattr(endpoint, "PAUSE", 0.0)


@pytest.mark.parametrize(("lies", "words"), [
    ({"output": {"shape": [1, 7]}}, "says one shape and gives another"),
    ({"output": {"data": [0.5]}}, "says one shape and gives another"),
    ({"output": {"data": [float("nan")] * 24, "shape": [8, 3]}}, "not a number"),
    ({"output": {"name": "q"}}, "did not answer with 'p'"),
    ({"output": {"data": "many"}}, "says one shape and gives another"),
    ({"status": 404}, "refused with 404"), ({"status": 503}, "refused with 503"),
    ({"metadata": {"inputs": []}}, "does not describe its model"),
    ({"metadata": {"inputs": [{"name": "x", "datatype": "INT8", "shape": [-1]}]}}, "does not take images"),
    ({"metadata": {"parameters": {"classes": ["cat", "dog", "cow"]}}}, "knows none of the classes"),
    ({"metadata": {"parameters": {"classes": ["red"]}}}, "3 answers for each example and 1 classes"),
])
def test_endpoints_that_lie(lies, words, ground, quick):
    with pytest.raises(DataError, match=words):
        met(_example.serve(ground, **lies), ground)


def test_pixels_go_over_the_wire_as_the_shape_says(ground):
    url = _example.serve(ground, metadata={"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]})
    one, _, remarks = met(url, ground)
    assert one.predictions.probabilities[0] == pytest.approx([1 / 3] * 3)
    assert "8 x 8 pixels" in remarks
    assert one.model.size_bytes() is None


def test_dead_slow_and_misnamed_endpoints(ground, quick):
    import socket

    with pytest.raises(DataError, match="cannot be reached"):
        met("http://127.0.0.1:9/v2/models/m", ground)
    with pytest.raises(DataError, match="no model of the Open Inference Protocol"):
        met("http://127.0.0.1:9/predict", ground)
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never says a word
    with silent, pytest.raises(DataError, match=r"did not answer within 0\.5 seconds"):
        met(f"http://127.0.0.1:{silent.getsockname()[1]}/v2/models/m", ground)


def test_texts_go_as_they_are():
    ids = ("a", "b", "c")
    none = TestSet((), Texts([]), np.zeros(0, np.int64), CLASSES)
    ground = Ground("text", CLASSES, none, ids, Texts(["one", "two", "three"]))
    (one,) = rivals.meet({"theirs": _example.serve(ground)}, ground)
    assert one.predictions.probabilities.shape == (3, 3)
