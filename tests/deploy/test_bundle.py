"""A bundle is checked whole before anything in it is loaded, and nothing that was changed gets through."""

import json
import os
import pickle
import signal
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_bundle, make_keys

from outdo.deploy import bundle
from outdo.deploy.bundle import Bundle, is_bundle
from outdo.errors import BundleError

MEMBERS = ["manifest.json", "model.onnx", "report.json"]


@pytest.fixture
def packed(tmp_path):
    return make_bundle(tmp_path)


@pytest.fixture
def unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(tmp_path / "folder")
    return tmp_path / "folder"


def repacked(path: Path, change, compress=zipfile.ZIP_STORED) -> Path:
    """The bundle with its list of (name, bytes) changed."""
    with zipfile.ZipFile(path) as opened:
        members = [(info.filename, opened.read(info)) for info in opened.infolist()]
    out = path.with_name("changed.outdo")
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", compress) as packed:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in change(members):
            packed.writestr(name, data)
    return out


def test_what_was_written_is_read(packed, unpacked):
    for path in (packed, unpacked):
        opened = Bundle.open(path)
        assert opened.names() == ["model.onnx", "report.json"]
        assert opened.about["classes"] == ["cat", "dog"]
        assert opened.json("report.json") == {"schema": 1}
        assert opened.read("model.onnx")[:2] == b"\x08\x09"  # an ONNX file's first field
        assert not opened.signed


def test_the_version_follows_the_members(tmp_path):
    versions = [Bundle.open(make_bundle(tmp_path, seed=seed)).about["version"] for seed in (0, 1)]
    assert versions[0] != versions[1]
    (tmp_path / "again").mkdir()
    again = make_bundle(tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "tiny-image-0.outdo").read_bytes()


def test_bundles_are_told_from_runs(packed, unpacked, tmp_path):
    assert is_bundle(packed)
    assert is_bundle(unpacked)
    assert not is_bundle(tmp_path)
    assert not is_bundle(tmp_path / "nothing")


# ── tampering ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("at", [0, -1])
def test_one_changed_bit_is_seen(unpacked, name, at):
    data = bytearray((unpacked / name).read_bytes())
    data[at] ^= 1
    (unpacked / name).write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(unpacked)


@pytest.mark.parametrize(("change", "said"), [
    (lambda m: [*m, ("more.bin", b"x")], "does not hold what its manifest says"),
    (lambda m: [x for x in m if x[0] != "report.json"], "does not hold what its manifest says"),
    (lambda m: [x for x in m if x[0] != "manifest.json"], "is no bundle"),
    (lambda m: [(n.replace("report", "rapport"), d) for n, d in m], "does not hold what its manifest says"),
    (lambda m: [(n, dict(m)["report.json" if n == "model.onnx" else "model.onnx"] if n != "manifest.json" else d)
                for n, d in m], "is not what the manifest says"),
    (lambda m: [*m, m[1]], "overlap or come twice"),
    (lambda m: [*m, ("../evil", b"x")], "'../evil'"),
    (lambda m: [*m, ("/etc/evil", b"x")], "is named"),
    (lambda m: [*m, ("a/b", b"x")], "is named"),
    (lambda m: [*m, ("C:evil", b"x")], "is named"),
    (lambda m: [*m, (".hidden", b"x")], "is named"),
    (lambda m: [*m, *((f"m{i}", b"") for i in range(bundle.MOST_MEMBERS))], "members"),
], ids=["extra", "missing", "no manifest", "renamed", "swapped", "twice", "up", "absolute", "folder", "drive", "hidden",
        "many"])
def test_other_members_are_refused(packed, change, said):
    with pytest.raises(BundleError, match=said.replace(".", r"\.")):
        Bundle.open(repacked(packed, change))


def test_compressed_members_are_refused(packed):
    with pytest.raises(BundleError, match="compressed or locked"):
        Bundle.open(repacked(packed, lambda m: m, zipfile.ZIP_DEFLATED))


def test_links_and_folders_are_refused(unpacked):
    (unpacked / "report.json").rename(unpacked.parent / "elsewhere.json")
    (unpacked / "report.json").symlink_to(unpacked.parent / "elsewhere.json")
    with pytest.raises(BundleError, match="a link or a folder"):
        Bundle.open(unpacked)


@pytest.mark.parametrize("manifest", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"schema": 2}', b"\xff\xfe",
                                      b'{"schema": 1, "members": []}'])
def test_a_manifest_that_makes_no_sense_is_refused(unpacked, manifest):
    (unpacked / "manifest.json").write_bytes(manifest)
    with pytest.raises(BundleError):
        Bundle.open(unpacked)


@pytest.mark.parametrize("facts", [{"kind": "video"}, {"classes": ["a"]}, {"classes": [1, 2]}, {"name": "a/b"},
                                   {"temperature": "hot"}, {"parity": []}, {"expected": 1}, {"threshold": "x"}])
def test_facts_of_the_wrong_sort_are_refused(tmp_path, facts):
    with pytest.raises(BundleError, match="manifest"):
        Bundle.open(make_bundle(tmp_path, **{"name": "tiny", **facts}) if facts.get("name") is None else
                    with_facts(tmp_path, facts))


def with_facts(folder: Path, facts) -> Path:
    path = make_bundle(folder)
    about = {k: v for k, v in Bundle.open(path).about.items() if k not in ("members", "version", "schema")}
    bundle.write(path, {**about, **facts}, {"model.onnx": b"x"})
    return path


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("text", "empty", "nothing"):
        with pytest.raises(BundleError):
            Bundle.open(tmp_path / name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("whole")).read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_is_changed_the_members_are_those_that_were_written_or_it_is_refused(whole, tmp_path_factory, data):
    mutant = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(mutant)))
    path = tmp_path_factory.getbasetemp() / "mutant.outdo"
    path.write_bytes(mutant[:cut])
    try:
        opened = Bundle.open(path)
    except BundleError:
        return
    before = tmp_path_factory.getbasetemp() / "whole.outdo"
    before.write_bytes(whole)
    expected = Bundle.open(before)
    manifest = b"classes" in bytes(mutant)  # an unsigned manifest may say something else; the members may not
    assert manifest
    assert {n: opened.read(n) for n in opened.names()} == {n: expected.read(n) for n in expected.names()}


def test_a_member_that_changes_after_opening_is_not_handed_out(unpacked):
    opened = Bundle.open(unpacked)
    (unpacked / "report.json").write_bytes(b'{"schema": 2}')
    with pytest.raises(BundleError, match="changed after"):
        opened.read("report.json")


class Marker:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.onnx", "model-int8.onnx", "tokenizer.json", "report.json", "manifest.json",
                                  "manifest.sig"])
def test_a_pickle_is_never_run(tmp_path, name):
    from outdo.deploy.predictor import BundlePredictor

    marker, path = tmp_path / "marker", make_bundle(tmp_path, "text" if name == "tokenizer.json" else "image")
    about = {k: v for k, v in Bundle.open(path).about.items() if k not in ("members", "version", "schema")}
    about["models"] = {"int8" if "int8" in name else "float32": "model-int8.onnx" if "int8" in name else "model.onnx"}
    with zipfile.ZipFile(path) as opened:
        model = opened.read("model.onnx")
    evil = pickle.dumps(Marker(marker))
    if name.startswith("manifest"):
        path = repacked(path, lambda m: [*(x for x in m if x[0] != name), (name, evil)])
    else:
        bundle.write(path, about, {"model.onnx": model, name: evil})
    with pytest.raises(BundleError):
        BundlePredictor(Bundle.open(path, trust=make_keys(tmp_path)[1] if name == "manifest.sig" else None))
    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists(), "the marker does not work"


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signature_is_checked(tmp_path):
    private, public = make_keys(tmp_path)
    path = make_bundle(tmp_path, key=private)
    assert Bundle.open(path, trust=public).signed
    assert not Bundle.open(path).signed
    with pytest.raises(BundleError, match="was not signed by the key"):
        Bundle.open(path, trust=make_keys(tmp_path)[1])


def test_an_unsigned_bundle_is_not_trusted(packed, tmp_path):
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(packed, trust=make_keys(tmp_path)[1])


def test_a_signed_manifest_cannot_be_changed(tmp_path):
    private, public = make_keys(tmp_path)
    path = make_bundle(tmp_path, key=private)
    changed = repacked(path, lambda m: [(n, d.replace(b'"cat"', b'"dog"') if n == "manifest.json" else d)
                                        for n, d in m])
    assert Bundle.open(changed).about["classes"] == ["dog", "dog"]
    with pytest.raises(BundleError, match="or was changed since"):
        Bundle.open(changed, trust=public)


@pytest.mark.parametrize("sort", ["ec", "public", "nonsense", "nothing"])
def test_keys_of_another_sort_are_refused(packed, tmp_path, sort):
    private, public = make_keys(tmp_path, "ec" if sort == "ec" else "ed25519")
    (tmp_path / "nonsense").write_text("hello")
    key = {"ec": private, "public": public, "nonsense": tmp_path / "nonsense", "nothing": tmp_path / "no"}[sort]
    with pytest.raises(BundleError, match="key"):
        bundle.signed(b"", key)
    trust = public if sort == "ec" else private if sort == "public" else key
    with pytest.raises(BundleError, match="key"):
        Bundle.open(make_bundle(tmp_path, name="s", key=make_keys(tmp_path)[0]), trust=trust)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_kill_leaves_the_old_bundle_or_none(tmp_path, monkeypatch, at):
    old = make_bundle(tmp_path).read_bytes()
    written = []

    def killing(self, info, data):
        written.append(info)
        if len(written) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, info, data)

    plain = zipfile.ZipFile.writestr
    child = os.fork()
    if not child:
        zipfile.ZipFile.writestr = killing
        make_bundle(tmp_path, name="new")
        make_bundle(tmp_path, threshold=0.9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "new-image-0.outdo").exists()
    assert (tmp_path / "tiny-image-0.outdo").read_bytes() == old


def test_a_manifest_is_readable_by_people(unpacked):
    text = (unpacked / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["schema"] == 1
    assert '\n "name": "tiny"' in text
