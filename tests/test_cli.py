"""The command line, with the main flow replaced: what reaches it, what is printed where, and the exit codes."""

import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import outdo
from outdo import cli
from outdo.contracts import Finding
from outdo.errors import DataError, Interrupted, MissingExtra
from outdo.progress import Bar, clock
from outdo.recipe import CHOICES


class FakeReport:
    def __str__(self):
        return "accuracy  91.5 %  96.1 %\nverdict: better on 1 axis"

    def as_json(self):
        return {"schema": 1, "verdict": {"better": 1}}


class FakePredictor:
    kind, classes = "image", ("cat",)

    def stream(self, inputs):
        return iter([{"input": i, "label": "cat", "probability": 0.9, "probabilities": {"cat": 0.9}} for i in inputs])


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The main flow replaced by functions that note what they were given."""
    noted = []

    def fake(name, answer):
        def call(*args, progress=None, **said):
            noted.append((name, args, said))
            if progress:
                progress("task: image_classification, because every image has one label", 1, 1)
                progress("features", 0, 3)
                progress("features", 3, 3)
            return answer

        return call

    result = SimpleNamespace(report=FakeReport(), folder=tmp_path / "runs" / "photos-1")
    answers = {"read": "the data", "improve": result, "compare": result.report, "load": FakePredictor()}
    for name, answer in answers.items():
        monkeypatch.setitem(vars(outdo), name, fake(name, answer))
    return noted


# ── what reaches the main flow ───────────────────────────────────────────────────────────────────────────────────────


def test_improve_passes_on_what_was_said_and_nothing_else(calls):
    line = ("improve photos --task image_classification --start-from tiny --minutes 0.5 --seed 7 --out runs/x --resume "
            "--baselines all --label-column species --epochs 3 --learning-rate 1e-3 --optimiser sgd")
    assert cli.main(line.split()) == 0
    assert [name for name, _, _ in calls] == ["read", "improve"]
    assert calls[0][1:] == ((Path("photos"),), {"input_column": None, "label_column": "species", "group_column": None})
    assert calls[1][1:] == (("the data",), {
        "task": "image_classification", "start_from": "tiny", "minutes": 0.5, "seed": 7, "out": Path("runs/x"),
        "resume": True, "baselines": "all", "against": [], "seeds": 1, "margin": None, "search": None, "trials": None,
        "workers": 1, "also": None, "axes": "default", "epochs": 3, "learning_rate": 0.001, "optimiser": "sgd"})


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: c.name)
def test_every_recipe_choice_is_a_flag(calls, capsys, choice):
    value = choice.options[0] if choice.options else choice.low
    assert cli.main(["improve", "photos", cli.flag(choice.name), str(value)]) == 0
    assert calls[-1][2][choice.name] == value
    with pytest.raises(SystemExit):
        cli.main(["improve", "--help"])
    described = " ".join(capsys.readouterr().out.split())
    assert cli.flag(choice.name) in described
    assert f"(default: {choice.default})" in described


# ── what is printed where ────────────────────────────────────────────────────────────────────────────────────────────


def test_improve_ends_in_the_table_and_the_path_of_the_report(calls, capsys):
    cli.main(["improve", "photos"])
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "accuracy  91.5 %  96.1 %"
    assert out.splitlines()[-1].startswith("report: ")
    assert out.endswith("photos-1/report.html\n")
    assert err.splitlines()[0] == "task: image_classification, because every image has one label"
    assert err.splitlines()[1].split() == ["features", "3", "of", "3", "in", "0:00"]


@pytest.mark.parametrize("line", ["improve photos --json", "compare a b --json"])
def test_json_is_alone_on_stdout(calls, capsys, line):
    assert cli.main(line.split()) == 0
    assert json.loads(capsys.readouterr().out) == FakeReport().as_json()


def test_compare_takes_two_runs(calls, capsys):
    assert cli.main(["compare", "runs/a", "runs/b"]) == 0
    assert calls[-1] == ("compare", ("runs/a", "runs/b"),
                         {"data": None, "margin": None, "require": [], "axes": "default", "out": None})
    assert "verdict: better" in capsys.readouterr().out


def test_check_describes_the_data(monkeypatch, capsys):
    seen = {}

    def check(source, progress=None, **columns):
        seen.update(source=source, **columns)
        finding = Finding("unreadable", 1, "1 file cannot be read", ("a.jpg",), "removed")
        return SimpleNamespace(describe=lambda: finding.message, findings=[finding])

    monkeypatch.setitem(sys.modules, "outdo.data.checks", SimpleNamespace(check=check))
    assert cli.main(["check", "photos.csv", "--input-column", "file"]) == 0
    assert capsys.readouterr().out == "1 file cannot be read\n"
    assert seen == {"source": Path("photos.csv"), "input_column": "file", "label_column": None, "group_column": None}


def test_check_of_what_cannot_be_trained_on_is_a_mistake(tmp_path, capsys):
    (tmp_path / "one.csv").write_text("text,label\na,x\nb,x\n")
    assert cli.main(["check", str(tmp_path / "one.csv")]) == 2
    said = capsys.readouterr()
    assert "nothing to tell apart" in said.out
    assert "cannot be trained on as it is" in said.err


@pytest.fixture
def a_run(monkeypatch, tmp_path):
    (tmp_path / "report.html").write_text("<p>better</p>")
    fake = SimpleNamespace(Report=SimpleNamespace(read=lambda folder: FakeReport()))
    monkeypatch.setitem(sys.modules, "outdo.evaluation.report", fake)
    return tmp_path


def test_report_shows_a_finished_run_again(a_run, capsys):
    assert cli.main(["report", str(a_run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {a_run / 'report.html'}"


def test_report_opens_the_page_when_asked(a_run, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    cli.main(["report", str(a_run), "--open"])
    assert opened == [(a_run / "report.html").resolve().as_uri()]


def test_predict_looks_into_folders(calls, tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    for name in ("b.jpg", "sub/a.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert cli.main(["predict", "runs/x", str(tmp_path), "c.jpg"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [["cat", "0.900", path] for path in (f"{tmp_path}/b.jpg", f"{tmp_path}/sub/a.PNG", "c.jpg")]


def test_predict_takes_texts_and_lines_of_stdin(calls, monkeypatch, capsys):
    monkeypatch.setattr(FakePredictor, "kind", "text")
    monkeypatch.setattr(sys, "stdin", io.StringIO("where is my card\nit was stolen\n"))
    assert cli.main(["predict", "runs/x", "hello there", "-", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [a["input"] for a in answers] == ["hello there", "where is my card", "it was stolen"]


def test_predict_does_not_take_a_file_for_a_text(calls, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FakePredictor, "kind", "text")
    (tmp_path / "questions.csv").write_text("text")
    assert cli.main(["predict", "runs/x", str(tmp_path / "questions.csv")]) == 2
    assert "is a file, and texts are expected" in capsys.readouterr().err


def test_predict_of_a_folder_without_images_is_the_users_mistake(calls, tmp_path, capsys):
    assert cli.main(["predict", "runs/x", str(tmp_path)]) == 2
    assert f"no images in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["tasks", "axes", "samplers", "readers", "recipe"])
def test_list_names_every_plug_in(capsys, kind):
    assert cli.main(["list", kind]) == 0
    named = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}
    expected = [c.name.replace("_", "-") for c in CHOICES] if kind == "recipe" else cli.plugins.names(kind)
    assert named == set(expected)


def test_list_without_a_kind_lists_all_kinds(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(":")] == [
        "tasks:", "backbones:", "axes:", "samplers:", "readers:", "rivals:", "recipe:"]


def test_a_file_name_that_is_not_text_can_be_printed():
    code = "from outdo import cli; cli.plugin_lines = lambda kind: ['\\udcff.jpg']; cli.main(['list', 'tasks'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\\udcff.jpg\n"


# ── mistakes and interruptions ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("line", "message"), [
    ("improv photos", "unknown command 'improv'. Did you mean 'improve'?"),
    ("--json", "unknown command '--json'. Valid: check, compare"),
    ("improve photos --epoch 3", "unknown flag '--epoch'. Did you mean '--epochs'?"),
    ("improve photos --learning_rate=1", "unknown flag '--learning_rate'. Did you mean '--learning-rate'?"),
    ("improve photos --epochs -1", "epochs cannot be -1. Expected a whole number from 0 to 1000, or auto."),
    ("improve photos --optimiser adamww", "optimiser cannot be 'adamww'. Did you mean 'adamw'?"),
    ("improve photos --task image_clasification", "Did you mean 'image_classification'?"),
    ("improve photos --minutes ten", "argument --minutes: invalid float value: 'ten'. See `outdo improve --help`."),
    ("improve photos --baselines al", "unknown baselines 'al'. Did you mean 'all'?"),
    ("improve photos more", "one argument too many, 'more'."),
    ("improve", "the following arguments are required: SOURCE."),
    ("list taks", "unknown kind 'taks'. Did you mean 'tasks'?"),
    ("report a --opne", "unknown flag '--opne'. Did you mean '--open'?"),
])
def test_a_mistake_is_one_message_and_exit_code_2(calls, capsys, line, message):
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("outdo: ")
    assert message in err
    assert err.count("\n") == 1
    assert calls == []  # nothing was begun


def raising(error):
    def call(*args, **said):
        raise error

    return call


@pytest.mark.parametrize(("error", "code", "message"), [
    (DataError("no images in photos"), 2, "outdo: no images in photos.\n"),
    (Interrupted("Interrupted. The best so far is in runs/x; go on with --out runs/x --resume"), 130,
     "outdo: Interrupted. The best so far is in runs/x; go on with --out runs/x --resume\n"),
    (KeyboardInterrupt(), 130, "outdo: interrupted\n"),
])
def test_exit_codes(calls, monkeypatch, capsys, error, code, message):
    monkeypatch.setitem(vars(outdo), "improve", raising(error))
    assert cli.main(["improve", "photos"]) == code
    assert capsys.readouterr() == ("", message)


def test_a_bug_keeps_its_traceback(calls, monkeypatch):
    monkeypatch.setitem(vars(outdo), "improve", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["improve", "photos"])


@pytest.mark.parametrize(("library", "extra"), [("torch", "train"), ("transformers", "text")])
def test_a_library_that_is_missing_names_the_extra(calls, monkeypatch, capsys, library, extra):
    monkeypatch.setitem(vars(outdo), "improve", raising(ModuleNotFoundError("No module", name=library)))
    assert cli.main(["improve", "photos"]) == 2
    needs = f"outdo improve needs the library {library}, which is not installed. Run pip install 'outdo[{extra}]'."
    assert capsys.readouterr().err == f"outdo: {needs}\n"


def test_a_module_that_is_missing_in_outdo_is_a_bug(calls, monkeypatch):
    monkeypatch.setitem(vars(outdo), "improve", raising(ModuleNotFoundError("No module", name="outdo.lost")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["improve", "photos"])


def test_every_optional_library_is_known():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    brought = {extra: {re.split(r"[><=~]", want)[0] for want in wants} for extra, wants in
               project["optional-dependencies"].items()}
    for library, extra in cli.EXTRAS.items():
        assert {"sklearn": "scikit-learn"}.get(library, library) in brought[extra]


def test_list_says_what_a_plug_in_lacks(monkeypatch, capsys):
    monkeypatch.setattr(cli.plugins, "names", lambda kind: ["ant_colony"])
    monkeypatch.setattr(cli.plugins, "load", raising(MissingExtra("a search", "optuna", "search")))
    assert cli.main(["list", "samplers"]) == 0
    assert capsys.readouterr().out.startswith("ant_colony  a search needs the library optuna")


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

HEAVY = {"numpy", "torch", "timm", "transformers", "sklearn", "PIL", "scipy"}


@pytest.mark.parametrize("line", ["", "--help", "improve --help", "list recipe", "improv"])
def test_help_and_mistakes_load_nothing_heavy(line):
    code = ("import sys; from outdo.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
            "print(*sys.modules, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "outdo.cli" in loaded
    assert not HEAVY & loaded


def test_help_is_there_at_once():
    code = "import time; t = time.perf_counter(); from outdo.cli import main; main(['--help']); " \
           "print(time.perf_counter() - t)"
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                     .stdout.splitlines()[-1]) for _ in range(5)]
    assert min(seconds) < 0.15  # the quickest of five: the machine may be busy with other tests


@pytest.mark.parametrize("line", ["list recipe", "improve --help", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(line):
    process = subprocess.Popen([sys.executable, "-m", "outdo", *line.split()], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


def test_exit_code_and_streams_of_the_module():
    done = subprocess.run([sys.executable, "-m", "outdo", "improv"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("outdo: unknown command")


def test_version():
    done = subprocess.run([sys.executable, "-m", "outdo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"outdo {outdo.__version__}\n"


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Screen(io.StringIO):
    def isatty(self):
        return True


def watch(monkeypatch, stream, steps):
    """A Bar's output for (second, what, done, total) steps."""
    now = SimpleNamespace(second=0.0)
    monkeypatch.setattr("outdo.progress.time.monotonic", lambda: now.second)
    with Bar(stream) as bar:
        for now.second, *step in steps:
            bar(*step)
    return stream.getvalue()


def test_a_terminal_sees_the_time_left(monkeypatch):
    text = watch(monkeypatch, Screen(), [(100.0, "features", 0, 400), (130.0, "features", 100, 400),
                                         (130.01, "features", 101, 400), (220.0, "features", 400, 400)])
    lines = text.split("\r")
    assert "100/400  1:30 left" in lines[2]
    assert "101/400" not in text  # redrawn ten times a second, not for each step
    assert lines[-1].split("\x1b")[0].split() == ["features", "400", "of", "400", "in", "2:00"]
    assert text.endswith("\n")


def test_what_stands_after_a_comma_may_change_within_a_stage(monkeypatch):
    text = watch(monkeypatch, Screen(), [(0.0, "search, best 90 %", 0, 4), (10.0, "search, best 95 %", 2, 4),
                                         (20.0, "search, best 95 %", 4, 4)])
    assert "search, best 95 %" in text
    assert "2/4  0:10 left" in text
    assert text.count(" in 0:") == 1


def test_a_log_gets_a_line_per_stage_and_a_sign_of_life(monkeypatch):
    text = watch(monkeypatch, io.StringIO(), [(0.0, "features", 0, 9), (1.0, "features", 2, 9),
                                              (31.0, "features", 3, 9), (32.0, "features", 9, 9),
                                              (32.0, "the test set is opened", 1, 1), (33.0, "judge", 0, 4)])
    lines = text.splitlines()
    assert "\r" not in text
    assert "3/9  1:02 left" in lines[0]
    assert lines[1].split() == ["features", "9", "of", "9", "in", "0:32"]
    assert lines[2] == "the test set is opened"
    assert lines[3].split() == ["judge", "0", "of", "4", "in", "0:00"]  # where it was when it all ended
    assert len(lines) == 4


@pytest.mark.parametrize("stream", [Screen, io.StringIO])
def test_a_stage_that_gave_way_to_the_next_leaves_no_line(monkeypatch, stream):
    text = watch(monkeypatch, stream(), [(1.0, "measuring accuracy", 0, 2), (2.0, "measuring size", 1, 2),
                                         (3.0, "measured", 1, 1)])
    assert [line.split("\r")[-1].replace("\x1b[K", "") for line in text.split("\n")] == ["measured", ""]


def test_nobody_reading_progress_does_not_end_a_training(monkeypatch):
    tried = []

    class Closed(io.StringIO):
        def write(self, text):
            tried.append(text)
            raise BrokenPipeError

    watch(monkeypatch, Closed(), [(0.0, "features", 1, 9), (1.0, "a remark", 1, 1)])
    assert tried


def test_clock():
    assert [clock(s) for s in (0.4, 75, 3700)] == ["0:00", "1:15", "1:01:40"]
