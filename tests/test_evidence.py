"""What the main flow hands to the axes and to the explanations, and training against attacks, on tiny stand-ins."""

import numpy as np
import pytest

import outdo
from outdo.contracts import Answers, Predictions
from outdo.errors import PluginError, RecipeError
from outdo.evaluation.axes import adversarial, corruption
from outdo.training import evidence
from test_improve import colours, talk


@pytest.fixture(scope="module")
def hardened(tmp_path_factory):
    """A run trained against attacks, attacked and explained; noise makes it err."""
    folder = tmp_path_factory.mktemp("hardened")
    patch = pytest.MonkeyPatch()
    patch.setattr(adversarial, "EXAMPLES", 4)
    patch.setattr(adversarial, "QUERIES", 5)
    patch.setattr(corruption, "MOST", 24)
    source = colours(folder / "p", noise=120, red=40, green=40, blue=40)
    result = outdo.improve(source, start_from="tiny-image", minutes=2, epochs=1, objective="adversarial", attack_eps=4,
                           axes="accuracy,corruption,adversarial,privacy,selective_risk", out=folder / "run")
    patch.undo()
    return result


def axis(result, name):
    return next(a for a in result.report.as_json()["axes"] if a["axis"] == name)


def test_only_what_was_asked_for_is_measured(hardened):
    measured = {a["axis"] for a in hardened.report.as_json()["axes"]}
    assert measured == {"accuracy", "corruption", "adversarial", "privacy", "selective_risk"}


def test_what_was_hardened_is_kept_whatever_the_plain_loss_says(hardened):
    assert hardened.report.name("after") == "fine-tuned, adversarial"
    assert hardened.report.as_json()["ladder"][-1]["words"].endswith("what was asked for")


def test_axes_get_what_they_need(hardened):
    for name in ("corruption", "adversarial", "privacy"):
        assert set(axis(hardened, name)["values"]) == {"linear probe", "fine-tuned, adversarial"}
    assert "likelihood_ratio" in axis(hardened, "privacy")["detail"]["linear probe"]
    assert len(axis(hardened, "selective_risk")["detail"]["linear probe"]["thresholds"]) == 3
    assert axis(hardened, "corruption")["detail"]["fine-tuned, adversarial"]["spoilt"] == 24


def test_mistakes_have_neighbours_among_what_was_trained_on(hardened):
    content = hardened.report.as_json()
    wrong = {flip["id"] for kind in ("gained", "lost") for flip in content["flips"][kind]}
    assert wrong <= set(content["nearest"])
    assert content["nearest"], "too easy: nothing was wrong"
    for near in content["nearest"].values():
        assert len(near) == 5
        assert [one["similarity"] for one in near] == sorted((one["similarity"] for one in near), reverse=True)
        assert not {one["id"] for one in near} & set(content["nearest"])  # of training, never of the test
    assert content["resources"]["cpu_seconds"] > 0


def test_the_page_shows_where_they_looked(hardened):
    content, page = hardened.report.as_json(), (hardened.folder / "report.html").read_text(encoding="utf-8")
    flipped = content["flips"]["n_gained"] + content["flips"]["n_lost"]
    assert flipped, "nothing flipped"
    assert page.count("before looked here") == page.count("after looked here") > 0


def test_texts_are_hardened_after_their_embedding(tmp_path):
    result = outdo.improve(talk(tmp_path / "t"), start_from="tiny-text", minutes=2, epochs=1, depth=1000,
                           objective="trades", attack_steps=1, axes="accuracy", out=tmp_path / "run")
    assert result.report.name("after") == "fine-tuned, trades"


@pytest.mark.parametrize("axes", ["accurcy", "default,privcy"])
def test_an_axis_that_does_not_exist_is_named_before_the_data_are_read(axes):
    with pytest.raises(PluginError, match=r"unknown axis.*Did you mean"):
        outdo.improve("nowhere", axes=axes)
    with pytest.raises(PluginError, match=r"unknown axis"):
        outdo.compare("a.csv", "b.csv", axes=axes)


def test_a_search_and_an_objective_exclude_each_other(tmp_path):
    with pytest.raises(RecipeError, match="plain loss"):
        outdo.improve(tmp_path, search="random", objective="adversarial")


def test_costly_axes_are_asked_for():
    from outdo.evaluation.report import chosen

    assert "adversarial" not in chosen("default")
    assert set(chosen("default,adversarial")) == set(chosen("all")) == {*chosen("default"), "adversarial"}
    assert chosen("size", "macro_f1") == ["macro_f1", "size"]


def test_held_out_answers_are_those_of_validation():
    class Model:
        def probabilities(self, outputs):
            return outputs * 2

    class Study:
        truth = np.array([0, 1])

    found = evidence.held_out(Study(), type("T", (), {"model": Model(), "outputs": np.eye(2)}))
    assert isinstance(found, Answers)
    assert isinstance(found.predictions, Predictions)
    assert (found.predictions.probabilities == 2 * np.eye(2)).all()
