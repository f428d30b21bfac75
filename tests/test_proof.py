"""Anybody against anybody, on a run's test and on other data; reproducing a run; recomputing a report."""

import json
import os
import shutil

import numpy as np
import pytest

import outdo
from outdo import cli, proof
from outdo.errors import DataError, RecipeError, RunError
from outdo.evaluation import predictions, report, verify, wear
from outdo.reproduce import reproduce
from test_improve import colours


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The axes that rest on answers, and latency; the others are tested elsewhere and take their time."""
    quick(monkeypatch)


def quick(patch):
    patch.setattr(report, "chosen", lambda *said: ["accuracy", "latency", "nll", "size", "worst_class"])
    patch.setattr("outdo.evaluation.axes.latency.SECONDS", 0.1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("photos") / "p", red=30, green=30, blue=30)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        return outdo.improve(photos, start_from="tiny-image", minutes=2, epochs=2,
                             out=tmp_path_factory.mktemp("run") / "r").folder


class Always:
    classes_ = ("red", "green", "blue")

    def predict(self, inputs):
        return ["red"] * len(inputs)


def values(found, axis="accuracy"):
    return next(a["values"] for a in found.content["axes"] if a["axis"] == axis)


# ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_against_itself_and_a_rival(run):
    found = outdo.compare(run, run, Always())
    main = {a["axis"]: a["comparisons"][0] for a in found.content["axes"]}
    assert main["accuracy"]["p"] == 1
    assert main["accuracy"]["difference"] == main["nll"]["difference"] == 0
    assert {c["verdict"] for c in main.values()} == {"no difference shown"}
    assert values(found)["Always"] == pytest.approx(1 / 3)
    assert values(found)[run.name] == report.Report.read(run).content["axes"][0]["values"][
        report.Report.read(run).name("after")]
    assert "latency" in main


def test_a_run_is_taken_apart_as_it_was_when_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "chosen", lambda *said: ["accuracy", "adversarial", "privacy", "selective_risk"])
    for effort in ("EXAMPLES", "PGD_STEPS", "APGD_STEPS", "QUERIES"):
        monkeypatch.setattr(f"outdo.evaluation.axes.adversarial.{effort}", 4)
    hard = colours(tmp_path / "hard", noise=120, red=30, green=30, blue=30)
    made = outdo.improve(hard, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "r")
    found = outdo.compare(Always(), made.folder, out=tmp_path / "out")
    for axis in ("adversarial", "privacy"):
        then, now = values(made.report, axis)[made.report.name("after")], values(found, axis)["r"]
        assert now == pytest.approx(then, abs=1e-3)
    selective = next(a for a in found.content["axes"] if a["axis"] == "selective_risk")
    assert len(selective["detail"]["r"]["thresholds"]) == 3
    assert found.content["flips"]["gained"], "nothing to look at"
    assert "after looked here" in (tmp_path / "out" / "report.html").read_text()


def test_a_rival_that_dies_while_it_is_timed_costs_that_axis_alone(run):
    class Dying(Always):
        asked = 0

        def predict(self, inputs):
            Dying.asked += 1
            if Dying.asked > 3:  # validation, the test, a first warming up
                raise ConnectionResetError("gone away")
            return super().predict(inputs)

    found = outdo.compare(run, Dying(), Always())
    assert {"accuracy", "nll"} <= {a["axis"] for a in found.content["axes"]}
    assert set(values(found, "latency")) == {run.name, "Always"}
    assert "latency could not be measured: the rival 'Dying' failed: gone away" in " ".join(str(found).split())


def test_on_other_data_all_are_asked_anew(run, photos, tmp_path):
    other = colours(tmp_path / "other", noise=55, red=15, green=15, blue=15)
    found = outdo.compare(Always(), run, data=other, out=tmp_path / "out")
    assert found.content["data"]["n"] == {"validation": 9, "test": 36}
    assert values(found)["Always"] == pytest.approx(1 / 3)
    assert values(found)[run.name] > 0.7
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert verify.verify(tmp_path / "out").wrong == ()
    declared = colours(tmp_path / "declared", noise=20, train__red=5, train__blue=5, test__red=4, test__blue=4)
    found = outdo.compare(Always(), run, data=declared)
    assert found.content["data"]["n"]["test"] == 8
    assert "does not know" not in str(found.content["contestants"][0].get("remarks"))


def test_runs_of_one_source_but_other_splits_meet_only_elsewhere(run, photos, tmp_path):
    other = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, seed=5, out=tmp_path / "r").folder
    with pytest.raises(RunError, match="not judged on the same test"):
        outdo.compare(run, other)
    assert outdo.compare(run, other, data=colours(tmp_path / "more", red=8, green=8, blue=8))


def test_where_the_data_are_gone_stored_answers_are_compared(run, photos, tmp_path):
    moved = tmp_path / "r"
    shutil.copytree(run, moved)
    state = json.loads((moved / "run.json").read_text())
    state["settings"]["source"] = str(tmp_path / "gone")
    (moved / "run.json").write_text(json.dumps(state))
    found = outdo.compare(moved, moved)
    assert {a["axis"] for a in found.content["axes"]} == {"accuracy", "nll", "worst_class", "size"}
    assert "not there any more" in found.content["notes"][0]
    with pytest.raises(DataError, match=r"the data of .* are not there any more"):
        outdo.compare(moved, Always())
    assert "latency" in {a["axis"] for a in outdo.compare(moved, Always(), data=photos).content["axes"]}


def test_a_test_that_changed_is_refused(run, photos, tmp_path):
    changed = tmp_path / "p"
    shutil.copytree(photos, changed)
    first = predictions.read(run)[0].ids[0]
    (changed / first).write_bytes((changed / predictions.read(run)[0].ids[1]).read_bytes())
    with pytest.raises(RunError, match="is not what it was"):
        outdo.compare(run, Always(), data=changed)


def test_other_examples_under_the_same_names_are_other_data(run, tmp_path):
    other = colours(tmp_path / "p", noise=55, red=30, green=30, blue=30)
    assert outdo.compare(run, Always(), data=other).content["data"]["n"] == {"validation": 18, "test": 72}


def test_the_runs_own_examples_under_one_anothers_names_are_no_other_data(run, photos, tmp_path):
    """As a table is whose lines were put into another order: most of them, the run was trained on."""
    mixed = tmp_path / "p"
    shutil.copytree(photos, mixed)
    for folder in mixed.iterdir():
        for i in range(30):
            shutil.copy(photos / folder.name / f"{(i + 1) % 30}.png", folder / f"{i}.png")
    with pytest.raises(RunError, match="is not what it was"):
        outdo.compare(run, Always(), data=mixed)


def test_stored_answers_are_those_to_these_very_examples(run, photos, tmp_path):
    other = tmp_path / "r"
    shutil.copytree(run, other)
    content = json.loads((other / "report.json").read_text())
    content["data"]["test_fingerprint"] = "0" * 64  # the same names and labels
    (other / "report.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="not judged on the same test"):
        outdo.compare(run, other)


def test_there_must_be_something_to_compare_on():
    with pytest.raises(DataError, match="nothing to compare them on"):
        outdo.compare(Always(), Always())


@pytest.mark.parametrize(("said", "error", "words"), [
    ({"margin": 0}, RecipeError, "a margin cannot be 0"), ({"margin": 2.0}, RecipeError, "a margin cannot be"),
    ({"require": ["speed: better"]}, RecipeError, "unknown axis 'speed'")])
def test_mistakes_leave_nothing_behind(said, error, words, run, tmp_path):
    with pytest.raises(error, match=words):
        outdo.compare(run, run, out=tmp_path / "out", **said)
    assert not (tmp_path / "out").exists()


def test_a_margin_makes_equivalent(run):
    assert next(a for a in outdo.compare(run, run, margin=0.5).content["axes"] if a["axis"] == "accuracy")[
        "comparisons"][0]["verdict"] == "equivalent"


def test_an_older_run_is_refused_in_one_message(run, tmp_path):
    old = tmp_path / "r"
    shutil.copytree(run, old)
    state = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps({**state, "schema": 0}))
    with pytest.raises(RunError, match="another version of outdo"):
        outdo.compare(old, run)


# ── the gate on the command line ─────────────────────────────────────────────────────────────────────────────────────


def test_exit_codes(run, tmp_path, capsys):
    rows = ["id,prediction", *(f"{name},red" for name in predictions.read(run)[0].ids)]
    (tmp_path / "red.csv").write_text("\n".join(rows))
    assert cli.main(["compare", str(run), str(tmp_path / "red.csv"), "--require", "accuracy: better"]) == 1
    assert "gate: do not promote" in capsys.readouterr().out
    assert cli.main(["compare", str(tmp_path / "red.csv"), str(run), "--require", "accuracy: better", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["gate"]["promote"] is True
    assert cli.main(["compare", str(run), str(run), "--require", "acuracy: better"]) == 2
    assert "Did you mean 'accuracy'" in capsys.readouterr().err
    assert cli.main(["compare", str(run)]) == 2


# ── the wearing out of a test ────────────────────────────────────────────────────────────────────────────────────────


def test_every_model_judged_on_a_test_is_counted_once(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTDO_CACHE", str(tmp_path / "cache"))
    first = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "a")
    assert first.report.content["data"]["test_judged"] == 1
    again = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "b")
    assert again.report.content["data"]["test_judged"] == 1  # the same model
    found = outdo.compare(first.folder, again.folder, Always())
    assert found.content["data"]["test_judged"] == 2
    assert "2 models have been judged on this test set" in " ".join(str(found).split())
    assert str(found).endswith("Models judged on this test set so far: 2.")
    assert wear.words(found.content) in found.content["in_words"]


# ── several seeds ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seeds_share_splits_and_are_in_the_intervals(photos, tmp_path):
    made = outdo.improve(photos, start_from="tiny-image", minutes=2, epochs=1, seeds=3, out=tmp_path / "r")
    content = made.report.content
    compared = next(a for a in content["axes"] if a["axis"] == "accuracy")
    after = made.report.name("after")
    assert "3 training seeds" in compared["comparisons"][0]["method"]
    assert len(compared["detail"][after]["seeds"]) == 3
    assert np.mean(compared["detail"][after]["seeds"]) == pytest.approx(compared["values"][after])
    assert [c["role"] for c in content["contestants"]].count("seed") == 0
    assert any("3 training seeds (0 to 2)" in note for note in content["notes"])
    assert verify.verify(made.folder).wrong == ()
    answers = [c.predictions.probabilities for c in predictions.read(made.folder)[1] if c.role in ("after", "seed")]
    assert len(answers) == 3
    assert not np.array_equal(answers[0], answers[1])


@pytest.mark.parametrize("seeds", [0, -1, 1.5, 1000])
def test_seeds_that_make_no_sense(seeds, photos, tmp_path):
    with pytest.raises(RecipeError, match="seeds cannot be"):
        outdo.improve(photos, seeds=seeds, out=tmp_path / "r")


# ── again, and checked ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_made_again_has_the_same_bits(run, tmp_path, capsys):
    found = reproduce(run, out=tmp_path / "again")
    assert found.same
    assert found.agrees
    assert "reproduced: the same bits" in str(found)
    assert found.compared > 3
    state = json.loads((tmp_path / "again" / "run.json").read_text())
    assert (state["state"], state["test_opened"]) == ("done", 1)


def test_everything_is_computed_anew(photos, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("OUTDO_CACHE", str(cache))
    folder = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "r").folder
    for rows in cache.rglob("rows.bin"):  # whoever reads these back has other features
        rows.write_bytes(bytes(rows.stat().st_size))
    shutil.rmtree(next(cache.rglob("probes")))
    before = sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*") if path.is_file())
    assert reproduce(folder, out=tmp_path / "again").same
    assert sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*") if path.is_file()) == before
    assert os.environ["OUTDO_CACHE"] == str(cache)


def test_the_winner_of_a_search_is_trained_again(photos, tmp_path, monkeypatch):
    from outdo.search import confirm
    from outdo.search.workbench import Workbench

    judged = confirm.judged  # one that is not the default recipe, which stands first, wins on both folds and after them
    monkeypatch.setattr(confirm, "judged", lambda rows: {**judged(rows), "chosen": rows[-1]["trial"]})
    monkeypatch.setattr(confirm, "handicap", lambda confirmed: -100.0)
    first = outdo.improve(photos, start_from="tiny-image", minutes=2, epochs=1, search="random", trials=4,
                          learning_rate="1e-4..1e-2", out=tmp_path / "r")
    assert first.report.name("after") == "searched"
    monkeypatch.setattr(Workbench, "run", lambda *_, **__: pytest.fail("a trial was repeated"))
    found = reproduce(first.folder, out=tmp_path / "again")
    assert found.same
    assert "its winner was trained again" in str(found)


def test_a_difference_is_seen(run, tmp_path):
    reproduce(run, out=tmp_path / "again")
    model = json.loads((tmp_path / "again" / "model.json").read_text())
    (tmp_path / "again" / "model.json").write_text(json.dumps({**model, "tensors": "model-other.safetensors"}))
    content = json.loads((tmp_path / "again" / "report.json").read_text())
    name = next(iter(content["axes"][0]["values"]))
    content["axes"][0]["values"][name] += 0.1
    (tmp_path / "again" / "report.json").write_text(json.dumps(content))
    from outdo.reproduce import compared

    found = compared(run, tmp_path / "again")
    assert (found.weights, found.same, found.agrees) == (False, False, False)
    assert len(found.figures) == 1
    assert "not reproduced" in str(found)


def test_data_that_are_gone_or_changed_are_no_reproduction(run, photos, tmp_path, monkeypatch):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    state = json.loads((copy / "run.json").read_text())
    state["settings"]["source"] = str(colours(tmp_path / "p", red=10, green=10, blue=10))
    (copy / "run.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="not what they were"):
        reproduce(copy, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_every_figure_is_recomputed_and_a_false_one_is_found(run, tmp_path, capsys):
    found = verify.verify(run)
    assert found.wrong == ()
    assert found.checked > 20
    assert "latency" in found.taken
    for spoil in (lambda c: c["axes"][0]["comparisons"][0].__setitem__("p", 0.001),
                  lambda c: c["axes"][0]["comparisons"][0].__setitem__("low", 0.5),
                  lambda c: c["flips"].__setitem__("n_gained", 99),
                  lambda c: c["verdict"].__setitem__("better", c["verdict"]["better"] + 1),
                  lambda c: c["axes"][0]["values"].__setitem__(next(iter(c["axes"][0]["values"])), 0.123)):
        copy = tmp_path / "r"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        content = json.loads((copy / "report.json").read_text())
        spoil(content)
        (copy / "report.json").write_text(json.dumps(content))
        assert verify.verify(copy).wrong
    assert cli.main(["report", str(copy), "--verify"]) == 1
    assert cli.main(["report", str(run), "--verify"]) == 0
    assert "recomputed from the stored answers" in capsys.readouterr().out


def test_other_answers_than_the_reports_are_found(run, tmp_path):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    test, contestants = predictions.read(copy)
    contestants[1].predictions.probabilities[0] = np.roll(contestants[1].predictions.probabilities[0], 1)
    predictions.write(copy, test, contestants)
    assert verify.verify(copy).wrong


def test_the_command_that_makes_a_comparison_again():
    said = proof.apart(["a b.onnx", "runs/x", "runs/x"])
    line = proof.command(said, "more photos", 0.02, ["accuracy: better"])
    assert line == ("outdo compare 'a b.onnx' runs/x runs/x --data 'more photos' --margin 0.02 --require "
                    "'accuracy: better'")
    assert cli.parse(__import__("shlex").split(line)[1:])


def test_a_rival_may_be_called_as_one_of_ours(photos, tmp_path):
    made = outdo.improve(photos, start_from="tiny-image", minutes=1, epochs=0, out=tmp_path / "r",
                         against={"linear probe": Always()})
    found = values(made.report)
    assert found["linear probe (rival)"] == pytest.approx(1 / 3, abs=0.06)
    assert found["linear probe"] > 0.5
    assert verify.verify(made.folder).wrong == ()
