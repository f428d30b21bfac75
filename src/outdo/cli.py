"""The command line: one function per command, in the words of the API.

What was asked for goes to stdout, everything else to stderr. Exit codes: 0 done, 1 what was to hold does not (`compare
--require`, `report --verify`, `reproduce`) or a bug (a traceback, please report it), 2 the user's mistake (one message,
no traceback), 130 interrupted (what was kept, how to go on).

Nothing heavy is imported before a command needs it: `outdo improve --help` loads neither numpy nor torch.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import outdo
from outdo import plugins
from outdo.errors import Interrupted, MissingExtra, UserError, nearest
from outdo.progress import Bar
from outdo.terminal import AtLeastTwo, Parser, flag, fraction, positive, say, show, table

HELP = f"""\
{outdo.__doc__.splitlines()[0] if outdo.__doc__ else "outdo"}

    outdo demo                    handwritten digits, against scikit-learn's own example: two minutes, no download
    outdo check SOURCE            what is in the data, and what is wrong with it
    outdo improve SOURCE          fine-tune, compare on a sealed test set, end in a verdict
    outdo compare A B [C ...]     runs, bundles, ONNX files, endpoints, tables of predictions, on one test; the gate
    outdo report RUN              a finished run's report again; --verify recomputes it
    outdo reproduce RUN           make a run again, and say what agrees
    outdo export RUN BUNDLE       one file that answers without torch, proved to answer alike
    outdo predict RUN INPUT...    what a finished run's model, or a bundle, answers
    outdo serve BUNDLE...         answer over HTTP, with a page; several bundles by name
    outdo keys add NAME           API keys of a server: add, revoke, list
    outdo list [KIND]             tasks, backbones, axes, samplers, readers, rivals, recipe choices

SOURCE is a folder with a folder of images for each class (train/, val/ and test/ above them if you like), the same in
a zip, or a CSV, TSV, JSON Lines or Parquet table. `outdo COMMAND --help` says more.
"""

FEW = 50  # inputs, for which it does not pay to find out which engine is fastest, or to draw a bar
# optional library -> the extra that brings it
EXTRAS = dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "scipy", "sklearn", "pyarrow"), "train")
EXTRAS |= dict.fromkeys(("starlette", "uvicorn", "httptools", "prometheus_client"), "serve")
EXTRAS |= {"transformers": "text", "tokenizers": "text", "optuna": "search", "onnxscript": "export", "onnx": "export"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that is not valid text must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run(argv)
    except UserError as error:
        say(f"outdo: {error}")
        return 2
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        say(f"outdo: {MissingExtra(f'outdo {argv[0]}', error.name, EXTRAS[error.name])}")
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        say(f"outdo: {str(error) or 'interrupted'}")
        return 130


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        show(HELP.rstrip())
        return 0 if argv else 2
    if argv[0] == "--version":
        show(f"outdo {outdo.__version__}")
        return 0
    command, args = parse(argv)
    return command(args) or 0


def parse(argv: Sequence[str]) -> tuple[Callable[[argparse.Namespace], int | None], argparse.Namespace]:
    """(the command's function, what it is called with). Only that command's flags are put together."""
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command '{argv[0]}'", fix=nearest(argv[0], COMMANDS))
    command, flags = COMMANDS[argv[0]]
    parser = Parser(prog=f"outdo {argv[0]}", description=command.__doc__, allow_abbrev=False)
    flags(parser)
    return command, parser.parse_args(argv[1:])


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def demo(args: argparse.Namespace) -> None:
    """Scikit-learn's 1,797 handwritten digits, first half against second, with scikit-learn's own SVC as the rival."""
    from outdo.demo import demo

    with Bar(sys.stderr) as bar:
        result = demo(minutes=args.minutes, out=args.out, progress=bar)
    show_result(result, args.json)


def demo_flags(parser: Parser) -> None:
    parser.add_argument("--minutes", type=float, default=1.0, metavar="M", help="time for training (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one in runs/)")
    json_flag(parser)


def check(args: argparse.Namespace) -> None:
    """What is in SOURCE, and what is wrong with it: unreadable files, duplicates, leaks, classes too small."""
    from outdo.data.checks import check

    with Bar(sys.stderr) as bar:
        checked = check(args.source, **columns(args), progress=bar)
    show(checked.describe())
    if any(finding.check == "cannot be trained on" for finding in checked.findings):
        raise UserError(f"{args.source} cannot be trained on as it is", fix="the last finding says why")


def check_flags(parser: Parser) -> None:
    source_flags(parser)


def improve(args: argparse.Namespace) -> None:
    """Fine-tune a pretrained model on SOURCE and show by how much it beats what you had, on a test set opened once."""
    from outdo.recipe import NAMES, Recipe
    from outdo.search.wish import wish

    said = {name: value for name in NAMES if (value := getattr(args, name)) is not None}
    how = {name: getattr(args, name) for name in ("search", "trials", "workers", "also")}
    wished = wish(how["search"], said, args.trials, args.workers, args.also, args.start_from)
    said |= wished.space.recipe.said if wished else Recipe(**said).said
    if args.against:
        from outdo.evaluation import rivals

        rivals.named(args.against)
    if args.task is not None:  # a typing error is cheapest before the data are read
        plugins.load("tasks", args.task)
    with Bar(sys.stderr) as bar:
        data = outdo.read(args.source, **columns(args))
        result = outdo.improve(
            data, task=args.task, start_from=args.start_from, minutes=args.minutes, seed=args.seed, out=args.out,
            resume=args.resume, baselines=args.baselines, against=args.against, seeds=args.seeds, margin=args.margin,
            axes=args.axes, progress=bar, **how, **said,
        )
    show_result(result, args.json)


def improve_flags(parser: Parser) -> None:
    from outdo.recipe import CHOICES, span

    parser.usage = "%(prog)s SOURCE [--minutes M] [--start-from B] [--out DIR] [--resume] [--json] [--CHOICE V] ..."
    source_flags(parser)
    parser.add_argument("--task", metavar="T", help="see `outdo list tasks` (default: read off the data)")
    parser.add_argument("--start-from", metavar="B", help="the pretrained backbone, see `outdo list backbones`; "
                        "with --search also several, with commas between")
    parser.add_argument("--minutes", type=float, metavar="M", help="time for training, to which judging adds about "
                        "half a minute (default: 10, or those of the run that is resumed)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of splits and training (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    parser.add_argument("--baselines", choices=("default", "all"), default="default",
                        help="all: also a small network from scratch and the plain full fine-tune")
    parser.add_argument("--against", action="append", default=[], metavar="R", help="a rival, asked about the same "
                        "test: a run, a bundle, model.onnx, a URL, predictions.csv; may be repeated")
    parser.add_argument("--seeds", type=int, default=1, metavar="K",
                        help="train K times in that time and judge the mean (default: 1)")
    axes_flag(parser)
    margin_flag(parser)
    json_flag(parser)
    search_flags(parser.add_argument_group("search", "for a better recipe; choices may then be ranges, as in "
                                           "--learning-rate 1e-4..1e-2 --optimiser sgd,adamw"))
    group = parser.add_argument_group("recipe choices", "good as they are; `auto` is decided from data and time")
    for choice in CHOICES:
        text = f"{choice.help}; {span(choice)} (default: {choice.default})"
        group.add_argument(flag(choice.name), metavar="V", help=text.replace("%", "%%"))


def search_flags(group: Any) -> None:
    group.add_argument("--search", metavar="S", help="auto, or a sampler of `outdo list samplers`")
    group.add_argument("--trials", type=int, metavar="N", help="at most so many (default: as time allows)")
    group.add_argument("--workers", type=int, default=1, metavar="K", help="processes that run trials (default: 1)")
    group.add_argument("--also", metavar="A", help="latency: look for fast and good at once, and show the front")


def compare(args: argparse.Namespace) -> int:
    """A against B (and B against each C), paired on the same examples. Each is a run's folder, a bundle, model.onnx,
    the URL of an endpoint or predictions.csv. With --require: exit code 0 to promote B, 1 not to."""
    from outdo import runtime

    runtime.prepare()
    first, second, *more = args.contestants
    with Bar(sys.stderr) as bar:
        found = outdo.compare(first, second, *more, data=args.data, margin=args.margin, require=args.require,
                              axes=args.axes, out=args.out, progress=bar)
    show_report(found, args.json)
    if args.out and not args.json:
        show(f"\nreport: {args.out / 'report.html'}")
    return int(not found.as_json().get("gate", {"promote": True})["promote"])


def compare_flags(parser: Parser) -> None:
    parser.usage = "%(prog)s A B [C ...] [--data SOURCE] [--require REQUIREMENT] [--margin M] [--out DIR] [--json]"
    parser.add_argument("contestants", nargs="+", action=AtLeastTwo, metavar="A B", help="what you had, and what may "
                        "be better; options of model.onnx stand after a ?")
    parser.add_argument("--data", type=Path, metavar="SOURCE", help="examples to compare them on (default: the test of "
                        "the first run among them)")
    parser.add_argument("--require", action="append", default=[], metavar="REQ",
                        help="'accuracy: better', 'worst class: not worse', 'latency: not worse than 5 %%'; may be "
                        "repeated")
    axes_flag(parser)
    margin_flag(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the report and its page")
    json_flag(parser)


def axes_flag(parser: Parser) -> None:
    parser.add_argument("--axes", default="default", metavar="A", help="what to measure: default, all, or names with "
                        "commas between, as in default,adversarial (see `outdo list axes`)")


def margin_flag(parser: Parser) -> None:
    parser.add_argument("--margin", type=float, metavar="M", help="differences within it count as equivalent: 0.02 is "
                        "2 points of accuracy, or 2 %% of a time")


def reproduce(args: argparse.Namespace) -> int:
    """Make a finished run again from its stored plan, and say whether weights, predictions and figures agree. Exit
    code 0 when they do, 1 when not."""
    from outdo.reproduce import reproduce

    with Bar(sys.stderr) as bar:
        found = reproduce(args.run, out=args.out, progress=bar)
    show(json.dumps(found.as_json(), indent=1) if args.json else str(found))
    return int(not found.agrees)


def reproduce_flags(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new run's folder (default: one beside RUN)")
    json_flag(parser, "what agrees, as JSON")


def report(args: argparse.Namespace) -> int:
    """Show the report of a finished run again."""
    from outdo.evaluation.report import Report

    if args.verify:
        from outdo.evaluation.verify import verify

        found = verify(args.run)
        show(str(found))
        return int(bool(found.wrong))
    show_report(Report.read(args.run), as_json=False)
    page = args.run / "report.html"
    show(f"\nreport: {page}")
    if args.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def report_flags(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--open", action="store_true", help="open the page in a browser too")
    parser.add_argument("--verify", action="store_true", help="recompute every figure from the stored predictions "
                        "instead; exit code 1 when one differs")


def export(args: argparse.Namespace) -> None:
    """The better model of a finished run as one file that answers without torch, and the proof that both answer alike.
    Where they do not, nothing is written."""
    from outdo import runtime

    runtime.prepare()
    from outdo.deploy.engines import installed
    from outdo.deploy.export import export

    over_http = None
    if installed("starlette") and installed("prometheus_client"):
        from outdo.serving import proof

        over_http = proof.answers
    with Bar(sys.stderr) as bar:
        shipped = export(args.run, args.bundle, int8=args.int8, sign=args.sign, name=args.name, source=args.source,
                         over_http=over_http, progress=bar)
    show("\n".join([*shipped.said, f"\nbundle: {shipped.path}"]))


def export_flags(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the file to write, such as photos.outdo")
    parser.add_argument("--int8", choices=("auto", "never", "only"), default="auto", metavar="WHEN",
                        help="a model in 8 bits: auto (where it is faster and as good), never, only (default: auto)")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign it with this Ed25519 private key (PEM)")
    parser.add_argument("--name", metavar="NAME", help="what a server calls it (default: the name of the data)")
    parser.add_argument("--source", type=Path, metavar="SOURCE", help="where the run's data are now, if moved since")


def predict(args: argparse.Namespace) -> None:
    """What a bundle or the model of a finished run answers: one line per input, as label, probability and input between
    tabs. Inputs that cannot be read are told on stderr, and the exit code is 2."""
    from outdo import runtime

    runtime.prepare()  # which only counts before torch is imported
    from outdo.deploy.answers import lines

    predictor, answers = answering(args)
    wrong: list[str] = []
    for line in lines(remembering(answers, wrong), predictor.classes, args.form):
        show(line)
    if wrong:
        for reason in wrong[:20]:
            say(f"outdo: {reason}")
        raise UserError(f"{len(wrong)} {'input' if len(wrong) == 1 else 'inputs'} could not be read")


def answering(args: argparse.Namespace) -> tuple[Any, Any]:
    """(the predictor, its answers as they come). For a few inputs nothing is measured first: see `FEW`."""
    from outdo.deploy.bundle import Bundle, is_bundle

    if not is_bundle(args.run):
        if args.trust:
            raise UserError("--trust is for bundles", found=f"{args.run}")
        predictor = outdo.load(args.run)
        inputs = expand(args.inputs, predictor.kind)
        return predictor, counted(predictor.stream(inputs), len(inputs))
    from outdo.deploy.predictor import BundlePredictor

    bundle = Bundle.open(args.run, trust=args.trust)
    inputs = expand(args.inputs, bundle.about["kind"])
    predictor = BundlePredictor(bundle, engine="onnxruntime" if len(inputs) < FEW else "auto")
    return predictor, counted(predictor.stream(inputs), len(inputs))


def counted(answers: Any, total: int) -> Any:
    """The answers, with a bar on stderr where there are many."""
    with Bar(sys.stderr) as bar:
        for done, answer in enumerate(answers, 1):
            if total >= FEW:
                bar("predicting", done, total)
            yield answer


def remembering(answers: Any, wrong: list[str]) -> Any:
    for answer in answers:
        if "error" in answer:
            wrong.append(f"{answer['input']}: {answer['error']}")
        yield answer


def predict_flags(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a bundle, or a run's folder")
    parser.add_argument("inputs", nargs="+", metavar="INPUT",
                        help="an image, or a folder of them; a text, if the run is about texts; "
                        "- reads one a line from stdin")
    forms = parser.add_mutually_exclusive_group()
    for form, text in (("json", "the answers as JSON, with the probability of every class"),
                       ("jsonl", "the same as JSON Lines, as they come"), ("csv", "the same as CSV, as they come")):
        forms.add_argument(f"--{form}", action="store_const", const=form, dest="form", help=text)
    parser.set_defaults(form="text")
    parser.add_argument("--trust", type=Path, metavar="KEY",
                        help="refuse a bundle that was not signed by this Ed25519 public key (PEM)")


def serve(args: argparse.Namespace) -> None:
    """Answer over HTTP: POST /predict, the Open Inference Protocol, metrics, and a page for people. SIGTERM finishes
    what was begun and ends; SIGHUP opens the bundles again."""
    from outdo.serving.keys import KeyFile
    from outdo.serving.server import Address, serve

    serve(args.bundles, Address(args.host, args.port, args.certificate, args.private_key),
          keys=args.keys and KeyFile(args.keys), without_keys=args.without_keys, rate=args.rate,
          challenger=args.challenger, share=args.share, shadow=args.shadow, trust=args.trust, deadline=args.deadline,
          queue=args.queue)


def serve_flags(parser: Parser) -> None:
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="what `outdo export` wrote")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="port to listen on (default: 8000)")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="ask for a key of this file, see `outdo keys`")
    parser.add_argument("--without-keys", action="store_true", help="answer anybody on an address that others reach")
    parser.add_argument("--rate", type=positive, metavar="N", help="inputs a second for each key, or each address")
    parser.add_argument("--challenger", type=Path, metavar="BUNDLE", help="a newer bundle of the same name")
    parser.add_argument("--share", type=fraction, default=0.0, metavar="S", help="of requests that it answers, 0 to 1")
    parser.add_argument("--shadow", type=Path, metavar="LOG", help="it answers nobody; both answers are written to LOG")
    parser.add_argument("--trust", type=Path, metavar="KEY", help="public key (PEM) that must have signed the bundles")
    parser.add_argument("--deadline", type=positive, default=10.0, metavar="S",
                        help="seconds after which a request is refused rather than answered (default: 10)")
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="inputs that may wait (default: 256)")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="serve HTTPS with this certificate (chain)")
    parser.add_argument("--private-key", type=Path, metavar="PEM", help="the certificate's private key")


def keys(args: argparse.Namespace) -> None:
    """The API keys that `outdo serve --keys FILE` asks for. A new key is printed once; the file holds its hash."""
    from outdo.serving.keys import KeyFile

    file = KeyFile(args.file)
    if args.action != "list" and args.name is None:
        raise UserError(f"`outdo keys {args.action}` needs a name", fix=f"outdo keys {args.action} NAME")
    if args.action == "add":
        show(file.add(args.name, args.rate))
    elif args.action == "revoke":
        file.revoke(args.name)
    elif found := file.list():
        rows = [(key.name, key.created, f"{key.rate:g} inputs/s" if key.rate else "") for key in found]
        show("\n".join(table(rows)))


def keys_flags(parser: Parser) -> None:
    parser.add_argument("action", choices=("add", "revoke", "list"), metavar="ACTION", help="add, revoke or list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="whose key it is")
    parser.add_argument("--file", type=Path, default=Path("outdo-keys.json"), metavar="FILE",
                        help="the key file (default: outdo-keys.json)")
    parser.add_argument("--rate", type=positive, metavar="N", help="inputs a second, for this key alone")


def list_(args: argparse.Namespace) -> None:
    """What there is to choose from: the plug-ins of a kind, or the choices of a recipe with their defaults."""
    kinds = [args.kind] if args.kind else [*plugins.FOLDERS, "recipe"]
    for i, kind in enumerate(kinds):
        lines = recipe_lines() if kind == "recipe" else plugin_lines(kind)
        if not args.kind:
            lines = [f"{kind}:", *(f"  {line}" for line in lines)]
        elif kind == "backbones":
            lines += ["", *backbone_names()]
        show("\n".join([""] * (i > 0) + lines))


def list_flags(parser: Parser) -> None:
    parser.add_argument("kind", nargs="?", choices=[*plugins.FOLDERS, "recipe"], metavar="KIND",
                        help=", ".join([*plugins.FOLDERS, "recipe"]))


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], Callable[[Parser], None]]] = {
    "demo": (demo, demo_flags),
    "check": (check, check_flags),
    "improve": (improve, improve_flags),
    "compare": (compare, compare_flags),
    "report": (report, report_flags),
    "reproduce": (reproduce, reproduce_flags),
    "export": (export, export_flags),
    "predict": (predict, predict_flags),
    "serve": (serve, serve_flags),
    "keys": (keys, keys_flags),
    "list": (list_, list_flags),
}


# ── what commands share ──────────────────────────────────────────────────────────────────────────────────────────────


def source_flags(parser: Parser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="class folders, a zip of them, or a table")
    for column, what in (("input", "the text, image path or image"), ("label", "the label"),
                         ("group", "what must not be split: patient, product")):
        parser.add_argument(f"--{column}-column", metavar="NAME", help=f"the table's column of {what}")


def columns(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("input_column", "label_column", "group_column")}


def json_flag(parser: Parser, what: str = "the report as JSON, and nothing else on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def show_result(result: Any, as_json: bool) -> None:
    show_report(result.report, as_json)
    if not as_json:
        show(f"\nreport: {result.folder / 'report.html'}")


def show_report(report: Any, as_json: bool) -> None:
    show(json.dumps(report.as_json(), indent=1) if as_json else str(report))


def expand(inputs: Sequence[str], kind: str) -> list[str]:
    """`-` stands for the lines of stdin; a folder, where the run is about images, for the images in it."""
    said = [line for item in inputs for line in (sys.stdin.read().splitlines() if item == "-" else [item])]
    if kind != "image":
        for item in inputs:
            if Path(item).is_file():
                raise UserError(f"{item} is a file, and texts are expected", fix=f"give its lines: ... - < {item}")
        return said
    from outdo.data.readers._tree import IMAGE_SUFFIXES

    found: list[str] = []
    for item in said:
        if not Path(item).is_dir():
            found.append(item)
        elif inside := sorted(str(p) for p in Path(item).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
            found += inside
        else:
            raise UserError(f"no images in {item}", expected="files such as .jpg or .png")
    return found


def plugin_lines(kind: str) -> list[str]:
    return table([(name, about(kind, name)) for name in plugins.names(kind)])


def about(kind: str, name: str) -> str:
    """A plug-in in words; what is missing, where its library is not installed."""
    try:
        plugin = plugins.load(kind, name)
    except UserError as error:
        return str(error)
    return str(plugin.summary) + (f" (default: {plugin.default})" if kind == "backbones" else "")


def backbone_names() -> list[str]:
    """Every name that a backbone family offers, one a line, so that grep finds it."""
    return [name for family in plugins.load_all("backbones").values() for name in family.names()]


def recipe_lines() -> list[str]:
    from outdo.recipe import CHOICES, span

    return table([(choice.name.replace("_", "-"), str(choice.default), f"{choice.help}; {span(choice)}")
                  for choice in CHOICES])
