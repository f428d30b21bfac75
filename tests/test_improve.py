"""The main job on tiny stand-ins: images and texts through the same flow, the seal, resuming, comparing, mistakes."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import outdo
from outdo import plugins
from outdo.climb import preferred
from outdo.errors import BackboneError, DataError, Interrupted, PluginError, RecipeError, RunError
from outdo.evaluation import predictions
from outdo.evaluation import report as reporting
from outdo.evaluation.page.words import WORDS
from outdo.recipe import Recipe
from outdo.training.contestants import Trained, losses_of, outdoes
from pictures import saved


def colours(root, noise=60, **counts):
    """Class folders of squares whose colour tells the class."""
    rng = np.random.default_rng(0)
    for place, count in counts.items():
        folder = root.joinpath(*place.split("__"))
        folder.mkdir(parents=True)
        channel = {"r": 0, "g": 1, "b": 2}[folder.name[0]]
        for i in range(count):
            pixels = rng.normal(110, noise, (20, 20, 3))
            pixels[:, :, channel] += 60
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            (folder / f"{i}.png").write_bytes(saved(image, "PNG"))
    return root


def talk(root, n=120):
    rng = np.random.default_rng(0)
    words = {"card": ["card", "plastic", "chip"], "loan": ["loan", "credit", "rate"], "app": ["app", "phone", "login"]}
    lines = ["text,label"]
    for i in range(n):
        label = list(words)[i % 3]
        lines.append(f"{' '.join(rng.choice(words[label], 2))} question number {i} {rng.integers(1e6)},{label}")
    root.mkdir()
    (root / "talk.csv").write_text("\n".join(lines) + "\n")
    return root / "talk.csv"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("photos") / "p", red=30, green=30, blue=30)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    return outdo.improve(photos, start_from="tiny-image", minutes=30, epochs=3, out=folder)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_both_tasks_go_through_the_same_flow(kind, tmp_path):
    source = colours(tmp_path / "p", red=24, green=24, blue=24) if kind == "image" else talk(tmp_path / "t")
    result = outdo.improve(source, start_from=f"tiny-{kind}", minutes=30, epochs=2, out=tmp_path / "run")
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content["task"] == f"{kind}_classification"
    assert content["data"]["test_opened"] == 1
    assert sum(content["data"]["n"].values()) == len(outdo.read(source))
    roles = [c["role"] for c in content["contestants"]]
    assert sorted(roles) == ["after", "baseline", "baseline", "before"]
    assert {a["axis"] for a in content["axes"]} >= {"accuracy", "macro_f1", "worst_class", "calibration_error", "nll",
                                                  "brier", "size"}
    assert [row["rung"] for row in content["ladder"]][-1] == "choice"
    assert len(content["curve"]) == 2
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    accuracy = next(a for a in content["axes"] if a["axis"] == "accuracy")["values"]
    assert accuracy[result.report.name("after")] > accuracy["majority class"]


def test_training_never_sees_a_test_label(photos, tmp_path, monkeypatch):
    """With every test label turned into another, all that was chosen and trained is the same, bit for bit."""
    def go(name, turn):
        data = outdo.read(photos)
        from outdo.data.splits import SealedTest

        plain = SealedTest.__init__
        monkeypatch.setattr(SealedTest, "__init__", lambda self, data, codes, classes: plain(
            self, data, (codes + turn) % 3, classes))
        outdo.improve(data, start_from="tiny-image", minutes=2, epochs=2, out=tmp_path / name)
        monkeypatch.undo()
        return (tmp_path / name / "model.json").read_text()

    assert go("a", 0) == go("b", 1)


def test_the_run_predicts(run, photos):
    model = outdo.load(run.folder)
    files = sorted((photos / "red").iterdir())[:5]
    answers = model.predict(files)
    assert [a["input"] for a in answers] == [str(f) for f in files]
    assert all(sum(a["probabilities"].values()) == pytest.approx(1) for a in answers)
    assert [a["label"] for a in answers].count("red") >= 3
    assert model.predict(files)[0] == answers[0]


def test_what_cannot_be_read_is_named_and_costs_nobody_his_answer(run, photos, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no image")
    files = [*sorted((photos / "red").iterdir())[:2], tmp_path / "x.jpg"]
    *good, bad = outdo.load(run.folder).stream(files)
    assert [a["label"] for a in good] == [a["label"] for a in outdo.load(run.folder).predict(files[:2])]
    assert set(bad) == {"input", "error"}
    with pytest.raises(DataError, match=r"x\.jpg cannot be read"):
        outdo.load(run.folder).predict(files)


def test_a_model_that_was_not_outdone_is_not_told_apart_by_a_clock(photos, tmp_path):
    result = outdo.improve(photos, start_from="tiny-image", minutes=0.001, out=tmp_path / "run")
    names = {c["role"]: c["name"] for c in result.report.content["contestants"]}
    timed = {a["axis"]: a["values"] for a in result.report.content["axes"] if a["axis"] in ("latency", "throughput")}
    same = names["after"].endswith("(not outdone)")
    assert all((v[names["before"]] == v[names["after"]]) == same for v in timed.values())
    assert len(timed) == 2


@pytest.mark.parametrize(("share", "chosen"), [(0.0, "probe"), (0.25, "tuned"), (None, "tuned")])
def test_a_fine_tune_that_validation_led_all_the_way_back_is_not_chosen(share, chosen):
    sides = {"probe": 0.5, "tuned": 4.0}
    probe, tuned = (Trained(SimpleNamespace(name=name), np.array([[sure, 0.0]] * 2), "")
                    for name, sure in sides.items())
    study = SimpleNamespace(recipe=Recipe(), truth=np.array([0, 0]))
    assert preferred(study, probe, replace(tuned, share=share))[0].model.name == chosen


@pytest.mark.parametrize(("gains", "expected"), [
    ([1.0, 1.0, 1.0, 1.0], True), ([2.0, -1.0, 1.0, -1.0], False), ([0.1] * 400, True), ([-0.1, -0.1], False),
    ([1.0], True), ([0.0], False)])
def test_a_fine_tune_has_to_lead_by_more_than_luck(gains, expected):
    """Outputs whose losses differ by `gains`, more or less."""
    truth = np.zeros(len(gains), int)
    champion = np.array([[0.0, 0.0]] * len(gains))
    challenger = np.array([[gain, 0.0] for gain in gains])
    found = outdoes(challenger, champion, truth)
    losses = losses_of(champion, truth) - losses_of(challenger, truth)
    assert found is expected
    assert not (found and outdoes(champion, challenger, truth))
    assert not outdoes(challenger, champion, truth, handicap=float(losses.max()))


def test_the_stored_model_answers_as_in_the_report(run, photos):
    test, contestants = predictions.read(run.folder)
    answers = outdo.load(run.folder).predict([photos / name for name in test.ids])
    stored = predictions.of_role(contestants, "after").predictions.probabilities
    given = np.array([[a["probabilities"][c] for c in test.classes] for a in answers])
    assert np.allclose(given, stored, atol=2e-3)


def test_a_run_against_itself_shows_no_difference(run):
    report = outdo.compare(run.folder, run.folder)
    accuracy = next(a for a in report.content["axes"] if a["axis"] == "accuracy")["comparisons"][0]
    assert accuracy["p"] == 1
    assert accuracy["verdict"] == "no difference shown"
    assert "worse on 0" in str(report)


def test_runs_on_other_tests_are_not_compared(run, tmp_path):
    other = outdo.improve(colours(tmp_path / "q", red=12, green=12, blue=12), start_from="tiny-image", minutes=1,
                          epochs=0, out=tmp_path / "run")
    with pytest.raises(RunError, match="not judged on the same test"):
        outdo.compare(run.folder, other.folder)


@pytest.mark.parametrize("stage", ["fine_tuned", "measure_all", "write_page"])
def test_an_interrupted_run_ends_as_one_that_was_not(run, photos, tmp_path, monkeypatch, stage):
    from outdo.evaluation import page
    from outdo.training import contestants

    where = {"fine_tuned": contestants, "measure_all": reporting, "write_page": page}[stage]

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stage, interrupted)
    said = {"start_from": "tiny-image", "minutes": 2, "epochs": 3, "out": tmp_path / "r"}
    with pytest.raises(Interrupted, match=r"best model so far.*--resume"):
        outdo.improve(photos, **said)
    monkeypatch.undo()
    assert outdo.load(tmp_path / "r").predict([photos / "red" / "0.png"])
    assert not (tmp_path / "r" / "report.json").exists()
    result = outdo.improve(photos, resume=True, **said)
    assert json.loads((result.folder / "model.json").read_text())["tensors"] == json.loads(
        (run.folder / "model.json").read_text())["tensors"]
    assert result.report.content["data"]["test_opened"] == (1 if stage == "fine_tuned" else 2)


def test_a_run_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    """The ids of a table are its lines: in another order, test examples would have been trained on."""
    from outdo.training import contestants

    source = talk(tmp_path / "t")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(contestants, "fine_tuned", interrupted)
    said = {"start_from": "tiny-text", "minutes": 2, "epochs": 1, "out": tmp_path / "r"}
    with pytest.raises(Interrupted):
        outdo.improve(source, **said)
    monkeypatch.undo()
    first, *lines = source.read_text().splitlines()
    source.write_text("\n".join([first, *reversed(lines)]) + "\n")
    with pytest.raises(DataError, match="not what they were when this run began"):
        outdo.improve(source, resume=True, **said)


def test_every_seed_has_its_share_of_the_time(photos, tmp_path, monkeypatch):
    from outdo import runs
    from outdo.training import contestants

    left, probe = {}, contestants.better_probe

    def noting(study):
        left[study.seed] = study.left()
        return probe(study)

    monkeypatch.setattr(contestants, "better_probe", noting)
    monkeypatch.setattr(runs.Run, "spent", lambda run: 1e4)
    outdo.improve(photos, start_from="tiny-image", minutes=3, seeds=3, axes="accuracy", out=tmp_path / "r")
    assert left[0] == 0
    assert left[1] > 40
    assert left[2] > 40


def test_a_head_without_a_probe_depends_on_the_seed_alone():
    from outdo.training.contestants import new_head

    study = SimpleNamespace(backbone=SimpleNamespace(width=4, torch_module=torch.nn.Linear(1, 1)), classes=("a", "b"),
                            task=plugins.load("tasks", "image_classification"), seed=3)
    one, other = new_head(study, None), (torch.rand(5), new_head(study, None))[1]
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, new_head(SimpleNamespace(**{**vars(study), "seed": 4}), None).weight)


def test_another_backbone_has_fits_of_its_own(photos, tmp_path):
    flow = sys.modules["outdo.improve"]
    run = SimpleNamespace(once=lambda name, make: make(), spent=lambda: 0.0, log=lambda row: None, stage=None)
    say = flow.Log(run, None)
    say.stage = lambda *_: None
    study, _, _ = flow.prepared(run, say, outdo.read(photos), plugins.load("tasks", "image_classification"), Recipe(),
                                "tiny-image", 0)
    other = flow.seen_by(run, say, study, "tiny-image", " 2")
    assert other._fits is not study._fits
    assert other._pooled is None


def test_a_resumed_run_needs_no_repeating_of_what_was_said(photos, tmp_path, monkeypatch):
    from outdo.evaluation import page

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    write_page = page.write_page
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "write_page", interrupted)
    with pytest.raises(Interrupted):
        outdo.improve(photos, start_from="tiny-image", minutes=2, epochs=1)
    monkeypatch.setattr(page, "write_page", write_page)
    result = outdo.improve(photos, resume=True)
    said = json.loads((result.folder / "run.json").read_text())["settings"]
    assert (said["minutes"], said["start_from"], said["recipe"]) == (2, "tiny-image", {"epochs": 1})


def test_everything_is_a_baseline_when_asked(tmp_path):
    source = colours(tmp_path / "p", red=20, green=20)
    result = outdo.improve(source, start_from="tiny-image", minutes=2, epochs=1, baselines="all", out=tmp_path / "run")
    names = {c["name"] for c in result.report.content["contestants"] if c["role"] == "baseline"}
    assert names == {"majority class", "nearest neighbours", "small network from scratch", "plain full fine-tune"}
    assert {f"name.{name}" for name in names} <= set(WORDS), "the page says them in Chinese too"


def test_a_rival_by_labels_and_one_by_probabilities(photos, tmp_path):
    class Labels:
        def predict(self, inputs):
            return ["red"] * len(inputs)

    class Shares:
        classes_ = np.array(["green", "red", "unheard of"])

        def predict_proba(self, inputs):
            return np.tile([0.2, 0.3, 0.5], (len(inputs), 1))

    result = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "run",
                           against={"labels": Labels(), "shares": Shares()})
    values = next(a for a in result.report.content["axes"] if a["axis"] == "accuracy")["values"]
    assert values["labels"] == values["shares"] == pytest.approx(1 / 3, abs=0.06)

    class Wrong:
        def predict(self, inputs):
            return ["purple"] * len(inputs)

    with pytest.raises(DataError, match="purple"):
        outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "w", against={"x": Wrong()})


@pytest.mark.parametrize(("said", "error", "words"), [
    ({"task": "image_clasification"}, PluginError, "[Dd]id you mean 'image_classification'"),
    ({"task": "text_classification"}, DataError, "do not suit"),
    ({"start_from": "tiny-imag"}, BackboneError, "[Dd]id you mean 'tiny-image'"),
    ({"minutes": 0}, RecipeError, "above 0"),
    ({"epochs": -1}, RecipeError, "from 0 to 1000"),
    ({"learning_rat": 1}, RecipeError, "[Dd]id you mean 'learning_rate'"),
    ({"minuts": 1}, RecipeError, "[Dd]id you mean 'minutes'"),
    ({"baselines": "some"}, RecipeError, "default or all"),
])
def test_mistakes_leave_nothing_behind(photos, tmp_path, said, error, words):
    with pytest.raises(error, match=words):
        outdo.improve(photos, out=tmp_path / "run", **{"start_from": "tiny-image", **said})
    assert not (tmp_path / "run").exists()


def test_one_class_and_lookalikes_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(DataError, match="nothing to tell apart"):
        outdo.improve(colours(tmp_path / "one", red=8), start_from="tiny-image", out=tmp_path / "run")
    with pytest.raises(DataError, match="differ only by case"):
        outdo.improve(colours(tmp_path / "two", red=8, rED=8), start_from="tiny-image", out=tmp_path / "run")
    with pytest.raises(DataError, match="nothing can be held out"):
        outdo.improve(colours(tmp_path / "few", red=3, green=3), start_from="tiny-image", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_five_of_a_class_are_enough(tmp_path):
    few = colours(tmp_path / "few", red=5, green=5)
    result = outdo.improve(few, start_from="tiny-image", minutes=1, epochs=1, out=tmp_path / "run")
    assert result.report.content["data"]["n"] == {"train": 6, "validation": 2, "test": 2}
