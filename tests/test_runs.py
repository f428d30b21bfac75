"""A run's folder: whole or refused, one writer, resumed only as what it was."""

import errno
import json
import multiprocessing

import pytest

from outdo import runs
from outdo.errors import RunError
from outdo.runs import Run, next_folder

SETTINGS = {"source": "photos", "seed": 0, "minutes": 1.0, "recipe": {"epochs": 2}}


def start(folder, resume=False, **changes):
    return Run.going(folder, {**SETTINGS, **changes}, resume)


def test_stages_are_decided_once(tmp_path):
    made = []
    with start(tmp_path / "r") as run:
        assert run.once("plan", lambda: made.append(1) or {"epochs": 3}) == {"epochs": 3}
        (run.folder / "model.json").touch()
    with start(tmp_path / "r", resume=True) as run:
        assert run.once("plan", lambda: made.append(1) or {"epochs": 4}) == {"epochs": 3}
    assert made == [1]


def test_seconds_and_openings_are_kept(tmp_path):
    with start(tmp_path / "r") as run:
        run.opened()
        run.save()
        before = run.state["spent"]
    with start(tmp_path / "r", resume=True) as run:
        assert run.spent() >= before
        run.opened()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["test_opened"] == 2


def test_a_folder_in_which_nothing_was_achieved_goes(tmp_path):
    with pytest.raises(ValueError, match="bad data"), start(tmp_path / "r"):
        raise ValueError("bad data")
    assert not (tmp_path / "r").exists()


def test_a_folder_with_a_model_stays(tmp_path):
    def interrupted():
        with start(tmp_path / "r") as run:
            (run.folder / "model.json").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["state"] == "running"


def test_mistakes_have_one_clear_message(tmp_path):
    with pytest.raises(RunError, match="no run to resume"), start(tmp_path / "none", resume=True):
        pass
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(RunError, match=r"is no run\. Choose another --out\.$"), start(tmp_path / "mine", resume):
            pass
    with start(tmp_path / "r") as run:
        run.save()
    with pytest.raises(RunError, match=r"exists already.*--out.*--resume"), start(tmp_path / "r"):
        pass
    with pytest.raises(RunError, match=r"another seed.*Expected 0.*Found 3"), start(tmp_path / "r", True, seed=3):
        pass
    with start(tmp_path / "r", resume=True, minutes=9.0) as run:
        run.finish()
    with pytest.raises(RunError, match="is finished"), start(tmp_path / "r", resume=True):
        pass
    assert Run.finished(tmp_path / "r").state["state"] == "done"
    with pytest.raises(RunError, match="missing"):
        Run.finished(tmp_path / "mine")


def test_killed_before_anything_was_written(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "lock").touch()
    (tmp_path / "r" / ".run.json.7.tmp").touch()
    with start(tmp_path / "r", resume=True) as run:
        assert run.state["state"] == "running"


def hold(folder, ready, let_go):
    with start(folder):
        ready.set()
        let_go.wait(20)


def test_two_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, let_go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "r", ready, let_go))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(RunError, match="another outdo is at work"), start(tmp_path / "r", resume=True):
            pass
    finally:
        let_go.set()
        other.join()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"),
                                              (errno.EACCES, "may not be written")])
def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch, number, words):
    def broken(path, value):
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(runs, "write_json", broken)
    with pytest.raises(RunError, match=words), start(tmp_path / "r"):
        pass
    assert not (tmp_path / "r" / "run.json").exists()


def test_runs_are_numbered(tmp_path):
    assert next_folder("/data/my photos.zip", False, tmp_path).name == "my-photos-1"
    (tmp_path / "photos-1").mkdir()
    assert next_folder("photos/", False, tmp_path).name == "photos-2"
    assert next_folder("photos/", True, tmp_path).name == "photos-1"
