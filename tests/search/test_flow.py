"""A search through the main flow: what the report says, what an interruption costs, what mistakes leave behind."""

import json

import numpy as np
import pytest
from PIL import Image

import outdo
from outdo.backbones import tiny_image
from outdo.errors import Interrupted, RecipeError, RunError
from outdo.evaluation import report as reporting
from outdo.runs import apart
from outdo.search import confirm
from outdo.search.workbench import Workbench
from pictures import saved

AXES = ["accuracy", "nll"]
SAID = {"start_from": "tiny-image", "minutes": 2, "epochs": 2, "search": "genetic", "trials": 12, "depth": "0..2"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for i in range(30):
            pixels = rng.normal(110, 60, (20, 20, 3))
            pixels[:, :, channel] += 60
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            (root / name / f"{i}.png").write_bytes(saved(image, "PNG"))
    return root


@pytest.fixture(autouse=True)
def _few_axes(monkeypatch):
    everything = reporting.measure_all
    monkeypatch.setattr(reporting, "measure_all", lambda those, test, *_, **__: everything(those, test, AXES))


def test_the_report_says_whether_the_search_was_worth_it(photos, tmp_path):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    result = outdo.improve(photos, out=tmp_path / "run", **SAID)
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    schema = json.loads(reporting.Path(reporting.__file__).with_name("report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(content)
    baselines = [c["name"] for c in content["contestants"] if c["role"] == "baseline"]
    assert "default recipe" in baselines
    against = [c["against"] for a in content["axes"] if a["axis"] == "accuracy" for c in a["comparisons"]]
    assert "default recipe" in against
    assert content["search"]["trials"] == 12
    assert content["data"]["test_opened"] == 1
    assert {"search", "choice"} <= {row["rung"] for row in content["ladder"]}
    assert 'id="search"' in (tmp_path / "run" / "report.html").read_text()
    assert outdo.load(tmp_path / "run").predict([photos / "red" / "0.png"])
    assert result.report.name("after") in {c["name"] for c in content["contestants"]}
    assert content["recipe"]["epochs"] == 2


def test_the_winner_may_stand_on_another_backbone(photos, tmp_path, monkeypatch):
    def blind():
        made = network()
        next(made.parameters()).data.zero_()
        return made

    network = tiny_image.network
    monkeypatch.setattr(tiny_image, "network", blind)
    said = {**SAID, "start_from": "tiny-image,efficientnet_lite0", "trials": 4, "depth": "0..1",
            "learning_rate": "1e-5..1e-3"}
    content = outdo.improve(photos, out=tmp_path / "run", **said).report.content
    assert json.loads((tmp_path / "run" / "model.json").read_text())["backbone"]["name"] == "efficientnet_lite0"
    assert [note.split()[2] for note in content["notes"][:2]] == ["tiny-image", "efficientnet_lite0"]
    assert outdo.load(tmp_path / "run").predict([photos / "red" / "0.png"])


@pytest.mark.parametrize("how", ["narrowed", "mixup"])
def test_texts_are_searched_too(tmp_path, monkeypatch, how):
    rng = np.random.default_rng(0)
    words = {"card": ["card", "plastic", "chip"], "loan": ["loan", "credit", "rate"]}
    rows = [f"{' '.join(rng.choice(words[label], 2))} number {rng.integers(1e6)},{label}" for label in [*words] * 40]
    (tmp_path / "talk.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    said = {**SAID, "start_from": "tiny-text", "search": "tpe"}
    if how == "mixup":  # its winner cannot be promoted to all layers, of which token ids are the input
        judged = confirm.judged
        monkeypatch.setattr(confirm, "judged", lambda rows: {**judged(rows), "chosen": rows[-1]["trial"]})
        said |= {"mixup": "0.3..0.5"}
    else:
        said |= {"depth": "0..1"}
    content = outdo.improve(tmp_path / "talk.csv", out=tmp_path / "run", **said).report.content
    assert content["search"]["states"]["complete"] >= 1
    assert {d["name"] for d in content["search"]["space"]}.isdisjoint({"augmentation", "input_size"})
    assert outdo.load(tmp_path / "run").predict(["a plastic card"])


def test_what_cannot_be_searched_is_said_before_anything_is_trained(photos, tmp_path, monkeypatch):
    from outdo.training import contestants

    monkeypatch.setattr(contestants, "linear_probe", lambda *_: pytest.fail("a probe was trained"))
    with pytest.raises(RecipeError, match="a search trains at most"):
        outdo.improve(photos, out=tmp_path / "run", **{**SAID, "depth": 99})


def test_what_two_spaces_do_not_share_is_said():
    then = {"sampler": "tpe", "space": [{"name": "depth", "low": 0, "high": 2}, {"name": "mixup", "low": 0, "high": 1}]}
    now = {"sampler": "tpe", "space": [{"name": "depth", "low": 0, "high": 3}, {"name": "mixup", "low": 0, "high": 1}]}
    assert apart(then, now) == ({"space": [then["space"][0]]}, {"space": [now["space"][0]]})
    assert apart(1, 2) == (1, 2)


def test_an_interrupted_search_goes_on(photos, tmp_path, monkeypatch):
    run, done = Workbench.run, []

    def interrupted(self, *args, **kwargs):
        done.append(1)
        if len(done) == 5:
            raise KeyboardInterrupt
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Workbench, "run", interrupted)
    with pytest.raises(Interrupted, match="best model so far"):
        outdo.improve(photos, out=tmp_path / "run", **SAID)
    monkeypatch.setattr(Workbench, "run", run)
    assert outdo.load(tmp_path / "run").predict([photos / "red" / "0.png"])
    with pytest.raises(RunError, match="another search"):
        outdo.improve(photos, out=tmp_path / "run", resume=True, **{**SAID, "search": "tpe"})
    content = outdo.improve(photos, out=tmp_path / "run", resume=True, **SAID).report.content
    assert content["search"]["trials"] == 12
    assert not list((tmp_path / "run").rglob("checkpoint.safetensors"))


def test_when_all_trials_fail_the_best_so_far_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Workbench, "run", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("nothing works")))
    with pytest.raises(RunError, match=r"all 12 trials failed; the best so far.*nothing works"):
        outdo.improve(photos, out=tmp_path / "run", **SAID)
    assert outdo.load(tmp_path / "run").predict([photos / "red" / "0.png"])


@pytest.mark.parametrize(("said", "words"), [
    ({"search": "genetics"}, "[Dd]id you mean 'genetic'"),
    ({"learning_rate": "1e-2..1e-4"}, "is empty"),
    ({"depth": "0..9"}, "cannot be above"),
    ({"seeds": 2}, "trained once"),
    ({"search": None, "trials": None}, "without a search"),
])
def test_mistakes_leave_nothing_behind(photos, tmp_path, said, words):
    with pytest.raises(RecipeError, match=words):
        outdo.improve(photos, out=tmp_path / "run", **{**SAID, **said})
    assert not (tmp_path / "run" / "run.json").exists() or (tmp_path / "run" / "model.json").exists()
