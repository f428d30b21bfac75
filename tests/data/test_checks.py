"""What is wrong with the data is found, said with examples, and kept from doing harm."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from outdo.contracts import Dataset
from outdo.data import checks
from outdo.data.checks import check, clean, describe, label_targets, suspect_labels
from outdo.data.encode import encode_images, encode_texts
from outdo.data.inputs import texts
from outdo.data.read import read
from outdo.errors import DataError
from pictures import class_folders, photo, picture, saved


def cleaned(data, **said):
    if data.kind == "image":
        encoded, _ = encode_images(data.inputs, size=64, fit="squash", cache=None)
    else:
        encoded, _ = encode_texts(data.inputs, None)
    return clean(data, encoded, label_targets, **{"seed": 0, **said})


def of_texts(*rows):
    """(text, label, split[, group]) rows as a dataset with ids t0, t1, ..."""
    words, labels, split = ([row[k] for row in rows] for k in range(3))
    groups = np.array([row[3] for row in rows]) if len(rows[0]) > 3 else None
    ids = tuple(f"t{i}" for i in range(len(rows)))
    return Dataset("here", texts(words), ids, np.array(labels), np.array(split), groups)


def plain(n, split, start=0):
    """n different texts, half of each class."""
    return [(f"text number {start + i}", "ab"[i % 2], split) for i in range(n)]


def found(result, name):
    return [f for f in result.findings if f.check == name]


def one(result, name):
    assert len(found(result, name)) == 1, [f.check for f in result.findings]
    return found(result, name)[0]


@pytest.fixture
def photos(tmp_path):
    """8 + 8 photographs in train, 3 + 3 in test, all different."""
    return class_folders(tmp_path / "photos", train__ant=8, train__bee=8, test__ant=3, test__bee=3)


def test_data_without_a_flaw_pass_untouched(photos):
    result = cleaned(read(photos))
    assert [f.check for f in result.findings] == ["few examples"]
    assert len(result.data) == len(result.encoded) == len(result.targets.codes) == 22
    assert result.data.groups is None
    assert (len(result.splits.train), len(result.splits.validation), len(result.splits.test)) == (12, 4, 6)


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refused_files_are_left_out_and_listed_wherever_they_are(photos):
    (photos / "train" / "ant" / "0.jpg").write_bytes(b"%!PS-Adobe")
    (photos / "train" / "bee" / "1.jpg").write_bytes(photo(5)[:300])
    (photos / "test" / "bee" / "2.jpg").write_bytes(b"")
    result = cleaned(read(photos))
    said = one(result, "unreadable")
    assert (said.count, said.severity) == (3, "removed")
    assert any(line.startswith("train/ant/0.jpg: not an image") and "EPS" in line for line in said.examples)
    assert any(line.startswith("test/bee/2.jpg: an empty file") for line in said.examples)
    assert len(result.data) == len(result.encoded) == 19
    assert not result.encoded.problems
    assert result.encoded.rows.shape[0] == 19


def test_nothing_readable_is_an_error_that_says_why(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"none of the 2 inputs can be read\. Found 2 not an image.*HTML"):
        cleaned(read(tmp_path))


# ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_copy_of_a_test_example_leaves_the_training_set(photos):
    leaked = (photos / "test" / "ant" / "0.jpg").read_bytes()
    (photos / "train" / "ant" / "same.jpg").write_bytes(leaked)
    (photos / "train" / "bee" / "same with another label.jpg").write_bytes(leaked)
    result = cleaned(read(photos))
    said = one(result, "copy of a test example")
    assert (said.count, said.severity) == (2, "removed")
    assert "train/ant/same.jpg: a copy of test/ant/0.jpg" in said.examples
    assert not any("same" in name for name in result.data.ids)
    assert len(result.splits.test) == 6, "the test stays whole"


def test_a_near_copy_leaves_too_but_not_with_another_label(photos):
    original = picture(500, (240, 320))
    (photos / "test" / "ant" / "big.png").write_bytes(saved(original, "PNG"))
    small = saved(original.resize((160, 120)), "JPEG", quality=60)
    (photos / "train" / "ant" / "small.jpg").write_bytes(small)
    (photos / "train" / "bee" / "small.jpg").write_bytes(saved(original.resize((161, 120)), "JPEG"))
    result = cleaned(read(photos))
    assert one(result, "copy of a test example").examples == ("train/ant/small.jpg: a copy of test/ant/big.png",)
    assert "0 the same, 1 nearly" in one(result, "copy of a test example").message
    assert "train/bee/small.jpg" in result.data.ids


def test_declared_validation_is_guarded_as_the_test_is():
    data = of_texts(*plain(20, "train"), *plain(4, "validation", 50), *plain(4, "test", 70),
                    ("text number 50!", "a", "train"), ("TEXT number 70", "a", "validation"))
    result = cleaned(data)
    assert one(result, "copy of a validation example").examples == ("t28: a copy of t20",)
    assert one(result, "copy of a test example").examples == ("t29: a copy of t24",)
    assert len(result.data) == 28


def test_copies_stand_on_one_side_where_splits_are_carved():
    """Every text five times: without groups nearly every test example would have been seen in training."""
    rows = [(f"text number {i}", "ab"[i % 2], "") for i in range(40) for _ in range(5)]
    result = cleaned(of_texts(*rows))
    names = result.splits.names()
    contents = [result.data.inputs.read(i) for i in range(200)]
    assert all(len({names[i] for i in range(200) if contents[i] == c}) == 1 for c in set(contents))
    assert set(names) == {"train", "validation", "test"}
    assert one(result, "duplicates").count == 160
    assert len(result.data) == 200


def test_copies_join_the_groups_of_the_source():
    rows = [(f"text number {i}", "ab"[i % 2], "", f"patient {i // 2}") for i in range(60)]
    rows[30] = (rows[0][0], "a", "", "patient 15")  # patients 0 and 15 share a text
    result = cleaned(of_texts(*rows))
    assert result.data.groups[0] == result.data.groups[1] == result.data.groups[30] == result.data.groups[31]
    assert len(set(result.data.groups)) == 29
    sides = result.splits.names()
    assert all(len(set(sides[result.data.groups == g])) == 1 for g in set(result.data.groups))


def test_duplicates_inside_the_test_are_a_warning_and_stay():
    result = cleaned(of_texts(*plain(20, "train"), *plain(6, "test", 50), ("text number 50", "a", "test")))
    said = one(result, "duplicates in test")
    assert (said.examples, said.severity) == (("t26: as t20",), "warning")
    assert len(result.splits.test) == 7


def test_near_duplicates_inside_the_test_are_told_with_what_they_repeat(photos):
    (photos / "test" / "ant" / "smaller.jpg").write_bytes(photo(16, quality=60))  # 0.jpg there is photo 16
    result = cleaned(read(photos))
    names = {"test/ant/0.jpg", "test/ant/smaller.jpg"}
    (told,) = one(result, "near duplicates in test").examples
    assert set(told.split(": as ")) == names
    assert len(result.splits.test) == 7


def test_images_that_all_look_alike_are_not_thrown_away(photos, monkeypatch):
    """A fixed camera: every picture nearly repeats every other, and that is no leak."""
    monkeypatch.setattr(checks, "ALIKE", 4)
    rng = np.random.default_rng(0)
    scene = np.asarray(picture(900, (120, 160))).astype(int)
    for i in range(12):
        frame = np.clip(scene + rng.integers(-6, 7, scene.shape), 0, 255).astype(np.uint8)
        place = photos / ("test" if i < 4 else "train") / "ant"
        (place / f"frame {i}.png").write_bytes(saved(Image.fromarray(frame), "PNG"))
    result = cleaned(read(photos))
    assert len(result.data) == 34
    assert one(result, "all look alike").count == 12
    assert "--group-column" in one(result, "all look alike").message


def test_a_long_chain_of_near_copies_is_said_and_does_not_eat_the_split(photos):
    scene = picture(901, (400, 400))
    for i in range(30):
        frame = scene.crop((2 * i, 0, 240 + 2 * i, 240))
        (photos / "train" / ("ant" if i % 2 else "bee") / f"frame {i:02}.png").write_bytes(
            saved(frame.resize((120, 120), Image.Resampling.BICUBIC), "PNG"))
    result = cleaned(replace(read(photos), split=np.full(52, "")))
    assert one(result, "chain of near copies").count > 20
    assert np.unique(result.data.groups, return_counts=True)[1].max() <= 20
    assert len(result.splits.test) == pytest.approx(10, abs=1)


# ── contradictions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_content_with_two_labels_leaves_training():
    result = cleaned(of_texts(*plain(20, "train"), *plain(6, "test", 50), ("Hm.", "a", "train"), ("hm", "b", "train")))
    said = one(result, "same content, different labels")
    assert (said.count, said.severity, said.examples) == (2, "removed", ("t26: a, t27: b",))
    assert len(result.data) == 26


def test_a_test_that_contradicts_itself_is_said_and_stays():
    result = cleaned(of_texts(*plain(20, "train"), *plain(6, "test", 50), ("Hm.", "a", "test"), ("hm", "b", "test")))
    assert one(result, "test contradicts itself").count == 2
    assert found(result, "same content, different labels") == []
    assert len(result.splits.test) == 8


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_small_and_unequal_classes_are_said():
    rows = [(f"a {i}", "a", "") for i in range(100)] + [(f"b {i}", "b", "") for i in range(8)]
    result = cleaned(of_texts(*rows))
    assert one(result, "few examples").examples == ("b: 5",)
    assert "12.8 times" in one(result, "imbalance").message


def test_a_class_that_only_removed_examples_made_is_an_error():
    rows = [*plain(20, ""), ("same", "c", ""), ("Same", "d", "")]
    rows += [("alone", "d", "")]
    with pytest.raises(DataError, match="class 'd' has only one example"):
        cleaned(of_texts(*rows))


@pytest.mark.parametrize(("labels", "words"), [
    (["a", "A", "b", "b"], "differ only by case, blanks or Unicode form: 'A', 'a'"),
    (["caf\u00e9", "cafe\u0301", "b", "b"], "Unicode form"),
    (["red wine", "redwine", "b", "b"], "differ only by case"),
    (["a", "a", "a", "a"], "nothing to tell apart"),
    (["a", "", "b", "b"], "1 examples have no label"),
])
def test_labels_that_cannot_be_meant(labels, words):
    with pytest.raises(DataError, match=words):
        label_targets(of_texts(*[(f"t{i}", label, "") for i, label in enumerate(labels)]))


# ── suspect labels ───────────────────────────────────────────────────────────────────────────────────────────────────


def held_out(n=300, wrong=10, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    said = true.copy()
    said[:wrong] = (said[:wrong] + 1) % classes
    probabilities = np.full((n, classes + 1), 0.04)  # a class that does not occur
    probabilities[np.arange(n), true] += 0.8
    return probabilities, said


def test_wrong_labels_are_listed_worst_first():
    probabilities, said = held_out()
    finding = suspect_labels(probabilities, said, [f"i{i}" for i in range(300)], "abcde")
    assert finding.count == 10
    assert {line.split(":")[0] for line in finding.examples} == {f"i{i}" for i in range(10)}
    assert all(line.split(": said ")[1][0] != line[-1] for line in finding.examples)


def test_right_labels_are_not_suspected():
    probabilities, said = held_out(wrong=0)
    assert suspect_labels(probabilities, said, [f"i{i}" for i in range(300)], "abcde").count == 0


def test_without_cleanlab_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    probabilities, said = held_out(20)
    finding = suspect_labels(probabilities, said, map(str, range(20)), "abcde")
    assert (finding.count, finding.severity) == (0, "note")
    assert "pip install cleanlab" in finding.message


# ── outdo check ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_describes_what_there_is(photos):
    (photos / "train" / "ant" / "0.jpg").write_bytes(b"broken")
    checked = check(photos)
    text = checked.describe()
    assert f"{photos}: 22 images, 2 classes" in text
    assert [line.split() for line in text.splitlines()[2:6]] == [
        ["class", "train", "test"], ["ant", "8", "3"], ["bee", "8", "3"], ["all", "16", "6"]]
    assert "removed: unreadable (1)" in text
    assert "- train/ant/0.jpg: not an image" in text
    assert text.index("removed:") < text.index("warning:")
    summary = checked.as_json()
    assert summary["classes"] == {"ant": {"train": 8, "test": 3}, "bee": {"train": 8, "test": 3}}
    assert len(summary["fingerprint"]) == 64
    assert max(map(len, text.splitlines())) <= 160


def test_what_would_stop_an_improve_is_a_finding_among_the_others(tmp_path):
    class_folders(tmp_path, ant=5, bee=1)
    (tmp_path / "ant" / "again.jpg").write_bytes(photo(0))
    checked = check(tmp_path)
    assert "class 'bee' has only one example" in one(checked, "cannot be trained on").message
    assert one(checked, "duplicates").examples == ("ant/again.jpg: as ant/0.jpg",)


def test_a_hundred_classes_are_not_all_listed():
    summary = {"source": "s", "kind": "text", "n": 200, "splits": {"": 200},
               "classes": {f"class {i}": {"": 2} for i in range(100)}}
    text = describe(summary, [])
    assert "and 80 more classes" in text
    assert text.endswith("nothing found")


def test_checking_needs_numpy_and_pillow_only(photos):
    script = """if True:
        import sys
        from outdo.data.checks import check
        print(check(sys.argv[1]).describe())
        heavy = {"torch", "pyarrow", "scipy", "sklearn", "cleanlab", "pandas", "timm"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", script, photos], check=True, capture_output=True, env={**os.environ})
