"""Sources of every sort, as people have them: what is read, what is said about the rest, and one message for each
mistake."""

import csv
import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outdo.data import images
from outdo.data.inputs import ParquetColumn
from outdo.data.read import read
from outdo.errors import DataError
from pictures import class_folders, photo


def write_csv(path, *rows, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def parquet_of(path, names, *rows):
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


def zipped(path, **members):
    """`zipped(path, **{"a/b.jpg": bytes})`; a member named twice is written twice."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def found(data, check):
    return next(f for f in data.findings if f.check == check)


def table_of(data):
    return sorted(zip(data.ids, map(str, data.labels), map(str, data.split), strict=True))


# ── class folders ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_class_folders(tmp_path):
    data = read(class_folders(tmp_path, ant=2, bee=1))
    assert table_of(data) == [("ant/0.jpg", "ant", ""), ("ant/1.jpg", "ant", ""), ("bee/0.jpg", "bee", "")]
    assert data.inputs.read(2) == photo(2)
    assert data.findings == ()


@pytest.mark.parametrize(("train", "held"), [
    ("train", "test"), ("Train", "TEST"), ("training", "testing"), ("train_set", "test_set"), ("train", "val"),
    ("train", "valid"), ("train", "dev"),
])
def test_split_folders_by_the_names_people_use(train, held, tmp_path):
    places = [f"{split}__{label}" for split in (train, held) for label in ("ant", "bee")]
    data = read(class_folders(tmp_path, **dict.fromkeys(places, 1)))
    assert sorted((label, split) for _, label, split in table_of(data)) == [
        ("ant", "test"), ("ant", "train"), ("bee", "test"), ("bee", "train")]


def test_validation_alone_becomes_the_test_and_it_is_said(tmp_path):
    data = read(class_folders(tmp_path, train__ant=2, train__bee=2, val__ant=1, val__bee=2))
    said = found(data, "validation used as test")
    assert (said.count, said.severity) == (3, "note")
    assert sorted(set(data.split)) == ["test", "train"]


def test_all_three_splits_stay_as_declared(tmp_path):
    data = read(class_folders(tmp_path, **{f"{s}__{c}": 1 for s in ("train", "val", "test") for c in ("ant", "bee")}))
    assert sorted(set(data.split)) == ["test", "train", "validation"]
    assert data.findings == ()


def test_classes_called_train_and_test_are_classes(tmp_path):
    """Means of transport: a train is no split when it holds the photographs itself."""
    data = read(class_folders(tmp_path, train=2, bus=2, test=1))
    assert set(data.labels) == {"train", "bus", "test"}
    assert set(data.split) == {""}


def test_what_lies_deeper_belongs_to_its_class_and_wrappers_are_stripped(tmp_path):
    data = read(class_folders(tmp_path, photos__ant__2019=1, photos__ant__2020=1, photos__bee=1))
    assert data.labels.tolist() == ["ant", "ant", "bee"]
    assert data.ids[0] == "photos/ant/2019/0.jpg"


def test_nothing_is_left_out_silently(tmp_path):
    class_folders(tmp_path, ant=2, bee=2)
    (tmp_path / "stray.png").write_bytes(photo())
    (tmp_path / "ant" / "notes.txt").write_text("hello")
    (tmp_path / "ant" / "photo.heic").write_bytes(b"0")
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"0")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"0")
    (tmp_path / "__MACOSX" / "ant").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "ant" / "._0.jpg").write_bytes(b"0")
    (tmp_path / "bee" / "bare").write_bytes(photo(9))  # no suffix, but an image
    data = read(tmp_path)
    assert len(data) == 5
    assert "bee/bare" in data.ids
    assert found(data, "no class folder").examples == ("stray.png",)
    assert found(data, "not an image").examples == ("ant/notes.txt", "ant/photo.heic")
    assert (found(data, "hidden files").count, found(data, "hidden files").severity) == (3, "note")


def test_test_images_without_a_class_are_said(tmp_path):
    class_folders(tmp_path, train__ant=2, train__bee=2, test=3)
    data = read(tmp_path)
    assert len(data) == 4
    assert found(data, "no class folder").count == 3


def test_folders_that_link_to_themselves_end(tmp_path):
    class_folders(tmp_path / "in", ant=1, bee=1)
    os.symlink(tmp_path / "in", tmp_path / "in" / "ant" / "again")
    class_folders(tmp_path / "far", wasp=1)
    os.symlink(tmp_path / "far" / "wasp", tmp_path / "in" / "wasp")
    assert sorted(set(read(tmp_path / "in").labels)) == ["ant", "bee", "wasp"]


def test_a_folder_that_is_linked_to_two_places(tmp_path):
    class_folders(tmp_path / "real", ant=2, bee=2)
    for split in ("train", "test"):
        (tmp_path / "in" / split).mkdir(parents=True)
        for label in ("ant", "bee"):
            os.symlink(tmp_path / "real" / label, tmp_path / "in" / split / label)
    with pytest.raises(DataError, match="are the same folder"):
        read(tmp_path / "in")
    whole = tmp_path / "whole"
    class_folders(whole / "train", ant=2, bee=2)
    os.symlink(whole / "train", whole / "test")
    with pytest.raises(DataError, match="are the same folder"):
        read(whole)
    os.symlink(tmp_path / "real" / "ant", tmp_path / "real" / "wasp")
    with pytest.raises(DataError, match="are the same folder"):
        read(tmp_path / "real")


def test_a_second_way_to_the_same_class_is_no_mistake(tmp_path):
    class_folders(tmp_path, ant__old=2, ant__new=1, bee=1)
    os.symlink(tmp_path / "ant" / "old", tmp_path / "ant" / "also")
    assert sorted(read(tmp_path).labels) == ["ant"] * 3 + ["bee"]


def test_names_that_no_terminal_can_show(tmp_path):
    class_folders(tmp_path, ant=1, bee=1)
    odd = os.fsencode(tmp_path) + b"/ant/\xff\x1b[31m.jpg"
    with open(odd, "wb") as file:
        file.write(photo(7))
    data = read(tmp_path)
    assert "ant/\\udcff\\x1b[31m.jpg" in data.ids
    json.dumps(data.ids).encode()
    assert data.inputs.read(data.ids.index("ant/\\udcff\\x1b[31m.jpg")) == photo(7)


# ── zip ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_zip_is_read_in_place(tmp_path):
    members = {f"photos/{s}/{c}/{i}.jpg": photo(i) for i in range(2) for s in ("train", "test") for c in ("ant", "bee")}
    path = zipped(tmp_path / "a.zip", **members, **{"__MACOSX/photos/._x.jpg": b"0", "photos/READ ME.txt": b"hi"})
    data = read(path)
    assert len(data) == 8
    assert {str(s) for s in data.split} == {"train", "test"}
    assert data.inputs.read(data.ids.index("photos/train/bee/1.jpg")) == photo(1)
    assert found(data, "not an image").examples == ("photos/READ ME.txt",)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_zip_from_windows(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ant\\0.jpg", "bee\\0.jpg"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, photo())
    assert read(path).labels.tolist() == ["ant", "bee"]


def test_a_table_and_its_images_in_a_zip(tmp_path):
    members = {"d/labels.csv": "image,label\nim/0.jpg,ant\nim/1.jpg,bee\nim/2.jpg,bee\n",
               "d/legend.csv": "value,name\n0,x\n", "d/im/0.jpg": photo(0), "d/im/1.jpg": photo(1)}
    data = read(zipped(tmp_path / "a.zip", **members))
    assert table_of(data) == [("d/im/0.jpg", "ant", ""), ("d/im/1.jpg", "bee", "")]
    assert found(data, "missing input").examples == ("d/labels.csv:4",)


def test_a_member_that_was_exchanged_has_another_signature(tmp_path):
    before = read(zipped(tmp_path / "a.zip", **{"ant/0.jpg": photo(0), "bee/0.jpg": photo(1)})).inputs.signature(0)
    after = read(zipped(tmp_path / "a.zip", **{"ant/0.jpg": photo(2), "bee/0.jpg": photo(1)})).inputs.signature(0)
    assert before != after


def with_flag(path):
    """Mark the members as encrypted, as a zip with a password has them."""
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = data.index(mark)
        data[at + flags] |= 1
    path.write_bytes(data)
    return path


def claiming(path, size):
    """A member that claims to have `size` bytes; never written, so that the test stays small."""
    data = bytearray(zipped(path, **{"ant/0.jpg": bytes(1000)}).read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def cut(path):
    path.write_bytes(zipped(path, **{"ant/0.jpg": photo()}).read_bytes()[:-30])
    return path


def zip_of_zips(path):
    return zipped(path, **{"inner.zip": zipped(path, **{"ant/0.jpg": photo()}).read_bytes()})


def link_in_zip(path):
    info = zipfile.ZipInfo("ant/0.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


ZIPS = {
    "leaves": (lambda p: zipped(p, **{"ant/../../evil.jpg": b""}), "would land outside"),
    "absolute": (lambda p: zipped(p, **{"/etc/evil.jpg": b""}), "would land outside"),
    "drive": (lambda p: zipped(p, **{"C:/evil.jpg": b""}), "would land outside"),
    "leaves though no image": (lambda p: zipped(p, **{"../evil.sh": b""}), "would land outside"),
    "link": (link_in_zip, "is a link"),
    "300 MB": (lambda p: claiming(p, 300 << 20), "300 MB. Expected at most 256 MB"),
    "bomb": (lambda p: claiming(p, 100 << 20), "zip bombs"),
    "password": (lambda p: with_flag(zipped(p, **{"ant/0.jpg": photo()})), "password"),
    "broken": (lambda p: p.write_bytes(b"PK\3\4" + bytes(50)) and p, "not a readable zip"),
    "cut": (cut, "not a readable zip"),
    "zip of zips": (zip_of_zips, "no images"),
    "empty": (zipped, "no images"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_are_refused(name, tmp_path):
    make, words = ZIPS[name]
    path = make(tmp_path / "a.zip")
    with pytest.raises(DataError, match=words):
        read(path)
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


def test_a_member_that_is_damaged_is_unreadable_and_no_more(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"ant/0.jpg": photo(0), "bee/0.jpg": photo(1)})
    data = bytearray(path.read_bytes())
    data[200:210] = bytes(10)
    path.write_bytes(data)
    inputs = read(path).inputs
    with pytest.raises(OSError, match="damaged"):
        inputs.read(0)
    assert inputs.read(1) == photo(1)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ROWS = [("Where is my card?", "card", 3), ("I lost it", "loss", 1), ("Hello", "other", 2)]


def as_csv(path, names=("text", "label", "stars")):
    return write_csv(path.with_suffix(".csv"), names, *ROWS)


def as_semicolons(path, names=("text", "label", "stars")):
    return write_csv(path.with_suffix(".csv"), names, *ROWS, delimiter=";")


def as_tsv(path, names=("text", "label", "stars")):
    return write_csv(path.with_suffix(".tsv"), names, *ROWS, delimiter="\t")


def as_json_lines(path, names=("text", "label", "stars")):
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in ROWS]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n\n")
    return path.with_suffix(".jsonl")


def as_parquet(path, names=("text", "label", "stars")):
    columns = dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))
    columns[names[1]] = pa.array(columns[names[1]]).dictionary_encode()
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


FORMATS = [as_csv, as_semicolons, as_tsv, as_json_lines, as_parquet]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_reads_the_same(write, tmp_path):
    data = read(write(tmp_path / "t"))
    assert data.kind == "text"
    assert [(data.inputs.read(i), str(data.labels[i])) for i in range(3)] == [row[:2] for row in ROWS]
    assert [int(v) for v in data.columns["stars"]] == [3, 1, 2]
    assert set(data.split) == {""}


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(("names", "said"), [
    (("Sentence", "Category", "n"), {}),
    (("question", "intent", "n"), {}),
    (("a", "b", "c"), {"input_column": "a", "label_column": "b"}),
    (("label", "text", "n"), {"input_column": "label", "label_column": "text"}),
])
def test_columns_are_detected_or_said(write, names, said, tmp_path):
    data = read(write(tmp_path / "t", names), **said)
    assert data.inputs.read(0) == "Where is my card?"
    assert data.labels.tolist() == ["card", "loss", "other"]
    assert list(data.columns) == [names[2]]


def test_the_only_other_column_is_the_input(tmp_path):
    assert read(write_csv(tmp_path / "t.csv", ("id", "label"), ("hello", "a"), ("bye", "b"))).inputs.read(0) == "hello"


@pytest.mark.parametrize("write", FORMATS)
def test_ids_say_the_line(write, tmp_path):
    path = write(tmp_path / "t")
    header = 1 if path.suffix in (".csv", ".tsv") else 0
    assert read(path).ids == tuple(f"{path.name}:{i + 1 + header}" for i in range(3))


def test_lines_are_those_of_the_file_even_after_a_text_of_several(tmp_path):
    data = read(write_csv(tmp_path / "t.csv", ("text", "label"), ("one\ntwo\nthree", "a"), ("four", "b")))
    assert data.ids == ("t.csv:2", "t.csv:5")


def test_a_stray_quote_in_a_tsv_swallows_nothing(tmp_path):
    (tmp_path / "t.tsv").write_text('text\tlabel\n5" nails\ta\nplain\tb\n"quoted"\tc\n')
    assert read(tmp_path / "t.tsv").labels.tolist() == ["a", "b", "c"]


def test_a_split_column_is_honoured(tmp_path):
    data = read(write_csv(tmp_path / "t.csv", ("text", "label", "split"), ("a", "x", "train"), ("b", "x", "Test"),
                          ("c", "y", "valid"), ("d", "y", "")))
    assert data.split.tolist() == ["train", "test", "validation", ""]
    assert data.columns == {}


def test_a_group_column_is_read_when_named(tmp_path):
    path = write_csv(tmp_path / "t.csv", ("text", "label", "patient"), ("a", "x", "p1"), ("b", "y", " p2 "))
    assert read(path).groups is None
    assert read(path).columns["patient"].tolist() == ["p1", " p2 "]
    data = read(path, group_column="patient")
    assert data.groups.tolist() == ["p1", "p2"]
    assert data.columns == {}


@pytest.mark.parametrize("write", [write_csv, parquet_of], ids=["csv", "parquet"])
def test_an_example_without_a_group_is_a_group_of_its_own(write, tmp_path):
    rows = ("a", "x", "p1"), ("b", "y", None), ("c", "x", "p1"), ("d", "y", None), ("e", "y", " ")
    path = write(tmp_path / f"t.{'csv' if write is write_csv else 'parquet'}", ("text", "label", "patient"), *rows)
    groups = read(path, group_column="patient").groups.tolist()
    assert groups[0] == groups[2] == "p1"
    assert len(set(groups)) == 4


def test_a_cell_may_hold_a_book(tmp_path):
    book = "word " * 40_000
    data = read(write_csv(tmp_path / "t.csv", ("text", "label"), (book, "a"), ("short", "b")))
    assert data.inputs.read(0) == book.strip()


def test_labels_of_any_type_are_text_as_written(tmp_path):
    rows = [json.dumps({"text": "a", "label": value}) for value in (" yes ", 3, 2.5, True, None)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    assert read(tmp_path / "t.jsonl").labels.tolist() == ["yes", "3", "2.5", "True", ""]


def test_empty_texts_are_left_out_and_said(tmp_path):
    data = read(write_csv(tmp_path / "t.csv", ("text", "label"), ("a", "x"), ("  ", "x"), ("b", "y"), ("", "y")))
    assert len(data) == 2
    assert (found(data, "missing input").count, found(data, "missing input").examples) == (2, ("t.csv:3", "t.csv:5"))


def test_half_a_character_in_json_is_replaced(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a\\ud83d", "label": "x"}\n{"text": "b", "label": "y"}')
    assert read(tmp_path / "t.jsonl").inputs.read(0).encode() == b"a?"


def test_image_paths_are_relative_to_the_table(tmp_path):
    class_folders(tmp_path, im=3)
    path = write_csv(tmp_path / "labels.csv", ("filename", "label"), ("im/0.jpg", "ant"), ("./im/1.jpg", "bee"),
                     ("im\\2.jpg", "bee"), (tmp_path / "im" / "2.jpg", "ant"), ("im/9.jpg", "ant"))
    data = read(path)
    assert data.kind == "image"
    assert data.inputs.read(1) == photo(1)
    assert data.ids == ("labels.csv:2", "labels.csv:3", "labels.csv:4", "labels.csv:5")  # one path comes twice
    assert found(data, "missing input").examples == ("labels.csv:6",)
    assert len(read(tmp_path)) == 4, "the folder is the same dataset"


def test_ids_are_the_paths_where_those_tell_apart(tmp_path):
    class_folders(tmp_path, im=2)
    data = read(write_csv(tmp_path / "labels.csv", ("image", "label"), ("im/0.jpg", "ant"), ("im/1.jpg", "bee")))
    assert data.ids == ("im/0.jpg", "im/1.jpg")


# ── parquet ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def image_parquet(path, count, *, rows_a_group=4, start=0, binary=False, classes=("ant", "bee")):
    """As Hugging Face datasets writes it: image {bytes, path}, label int with its names in the schema."""
    contents = [photo(start + i, (16, 16)) for i in range(count)]
    cells = contents if binary else [{"bytes": c, "path": f"{start + i}.jpg"} for i, c in enumerate(contents)]
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    table = pa.table({"image": cells, "label": [i % 2 for i in range(count)]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


@pytest.mark.parametrize("binary", [True, False])
def test_image_parquet(binary, tmp_path):
    data = read(image_parquet(tmp_path / "t.parquet", 10, binary=binary))
    assert data.kind == "image"
    assert [data.inputs.read(i) for i in range(10)] == [photo(i, (16, 16)) for i in range(10)]
    assert data.labels.tolist() == ["ant", "bee"] * 5
    assert data.ids[9] == ("t.parquet:10" if binary else "9.jpg")


def test_parquet_is_read_in_any_order_and_opened_lazily(tmp_path, monkeypatch):
    monkeypatch.setattr(ParquetColumn, "BATCH_BYTES", 3000)  # a few rows
    inputs = read(image_parquet(tmp_path / "t.parquet", 40, rows_a_group=16)).inputs
    order = np.random.default_rng(0).permutation(40)
    assert [inputs.read(i) for i in order] == [photo(i, (16, 16)) for i in order]


def test_reading_parquet_in_order_is_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(ParquetColumn, "BATCH_BYTES", 3000)
    restarts = []
    restart = ParquetColumn._restart
    monkeypatch.setattr(ParquetColumn, "_restart", lambda self, row: (restarts.append(row), restart(self, row)))
    inputs = read(image_parquet(tmp_path / "t.parquet", 40, rows_a_group=16)).inputs
    for i in range(40):
        inputs.read(i)
        inputs.read(max(0, i - 1))  # another thread, a little behind
    assert restarts == [0, 16, 32]


@pytest.mark.parametrize("names", [("train.parquet", "test.parquet"), ("cifar10-train.parquet", "cifar10-test.parquet"),
                                   ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")])
def test_tables_named_after_splits_are_one_dataset(names, tmp_path):
    image_parquet(tmp_path / names[0], 6)
    image_parquet(tmp_path / names[1], 4, start=6)
    data = read(tmp_path)
    assert sorted(zip(data.ids, map(str, data.split), strict=True)) == [
        *[(f"{i}.jpg", "train") for i in range(6)], *[(f"{i}.jpg", "test") for i in range(6, 10)]]
    assert data.inputs.read(data.ids.index("7.jpg")) == photo(7, (16, 16))


def test_shards_of_a_split(tmp_path):
    for shard in range(3):
        image_parquet(tmp_path / f"train-0000{shard}-of-00003.parquet", 4, binary=True, start=4 * shard)
    data = read(tmp_path)
    assert len(data) == 12
    assert data.ids[4] == "train-00001-of-00003.parquet:1"
    assert data.inputs.read(7) == photo(7, (16, 16))


def test_csv_splits_keep_the_columns_they_share(tmp_path):
    write_csv(tmp_path / "train.csv", ("text", "label", "stars", "x"), ("a", "x", 1, 0), ("b", "y", 2, 0))
    write_csv(tmp_path / "test.csv", ("label", "text", "stars"), ("x", "c", 3))
    write_csv(tmp_path / "sample_submission.csv", ("id", "y"), (1, 2))
    data = read(tmp_path)
    assert len(data) == 3
    assert list(data.columns) == ["stars"]


def test_image_structs_without_bytes_are_paths(tmp_path):
    class_folders(tmp_path, im=2)
    cells = pa.array([{"bytes": None, "path": f"im/{i}.jpg"} for i in range(2)],
                     pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": cells, "label": ["ant", "bee"]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").inputs.read(1) == photo(1)


def test_columns_of_other_types_are_left_out_and_said(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"], "tokens": [[1], [2, 3]]}), tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet")
    assert data.columns == {}
    assert found(data, "columns left out").examples == ("tokens",)


def test_pages_that_are_damaged_are_unreadable_cells(tmp_path):
    path = image_parquet(tmp_path / "t.parquet", 8)
    column = pq.read_metadata(path).row_group(1).column(0)
    assert column.path_in_schema == "image.bytes"
    at, data = column.dictionary_page_offset or column.data_page_offset, bytearray(path.read_bytes())
    data[at : at + 30] = bytes(30)
    path.write_bytes(data)
    inputs = read(path).inputs
    assert inputs.read(0) == photo(0, (16, 16))
    with pytest.raises(OSError, match="damaged"):
        inputs.read(5)
    assert inputs.read(0) == photo(0, (16, 16))


# ── one message for each mistake ─────────────────────────────────────────────────────────────────────────────────────


def text_file(name, content):
    def write(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return write


def only_strays(folder):
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(photo(i))
    return folder


def image_table(path_in_table):
    def write(folder):
        (folder / "in").mkdir()
        class_folders(folder / "in", im=1)
        (folder / "out.jpg").write_bytes(photo())
        return write_csv(folder / "in" / "t.csv", ("image", "label"), ("im/0.jpg", "a"), (path_in_table, "b"))
    return write


def two_tables(folder):
    for name in ("a.csv", "b.csv"):
        write_csv(folder / name, ("text", "label"), ("x", "y"))
    return folder


def twice_in_parquet(folder):
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["text", "label", "text"]),
                   folder / "t.parquet")
    return folder / "t.parquet"


MISTAKES = {
    "nothing there": (lambda f: f / "photos", "does not exist"),
    "a typing error": (lambda f: class_folders(f / "photos", ant=1).with_name("fotos"), "Did you mean 'photos'"),
    "empty folder": (lambda f: f, "is an empty folder. Expected .*folder for each class"),
    "empty file": (text_file("t.csv", ""), "is an empty file"),
    "another file": (text_file("t.docx", "x"), "no reader for .* Found a file ending in '.docx'"),
    "an image": (lambda f: f.joinpath("a.jpg").write_bytes(photo()) and f / "a.jpg", "no reader"),
    "images without folders": (only_strays, "no images in class folders.*Found 3 images, none in a folder"),
    "no images": (lambda f: text_file("notes.txt", "x")(f).parent, "Found 1 files, none of them an image"),
    "header only": (text_file("t.csv", "text,label\n"), "has no rows"),
    "no label column": (text_file("t.csv", "text,b\nx,y\n"), "no label column.*Found text, b.*--label-column"),
    "no input column": (text_file("t.csv", "a,b,label\nx,y,z\n"), "no input column.*Found a, b.*--input-column"),
    "a column twice": (text_file("t.csv", "text,label, text\na,b,c\n"), "more than one column named 'text'"),
    "a column twice in parquet": (twice_in_parquet, "more than one column named 'text'"),
    "a short row": (text_file("t.csv", "text,label\na,b\n\nc\n"), "line 4: 1 cells. Expected 2"),
    "a long row": (text_file("t.csv", "text,label\na,b,c\n"), "line 2: 3 cells"),
    "a quote left open": (text_file("t.csv", 'text,label\na,b\n"c,d\n'), "line 3"),
    "not UTF-8": (text_file("t.csv", b"text,label\na,b\ncaf\xe9,c\n"), "line 3: not UTF-8 text \\(byte 0xe9\\)"),
    "UTF-16": (text_file("t.csv", "text,label\na,b\n".encode("utf-16")), "not UTF-8"),
    "broken JSON": (text_file("t.jsonl", '{"text": "a", "label": "b"}\n{"text": '), "line 2: not JSON"),
    "JSON of another shape": (text_file("t.jsonl", '[1, 2]\n'), "line 1: a list. Expected an object"),
    "mixed types": (text_file("t.jsonl", '{"text": "a", "label": "b"}\n{"text": 3, "label": "b"}'),
                    "line 2: column 'text' holds 3. Expected .*all of one type"),
    "a list as label": (text_file("t.jsonl", '{"text": "a", "label": ["b"]}'), "line 1: column 'label' holds"),
    "an unknown split": (text_file("t.csv", "text,label,split\na,b,later\n"), "line 2: split 'later'"),
    "all texts empty": (text_file("t.csv", "text,label\n ,b\n"), "in all 1 rows the text is empty"),
    "all images missing": (text_file("t.csv", "image,label\na.jpg,b\n"), "image file does not exist.*'a.jpg'"),
    "a path upwards": (image_table("../out.jpg"), "t.csv, line 3: '../out.jpg' is outside"),
    "a path around": (image_table("im/../../out.jpg"), "line 3.*is outside"),
    "an absolute path": (image_table("/etc/passwd.jpg"), "line 3: '/etc/passwd.jpg' is outside"),
    "a windows path": (image_table("C:\\out.jpg"), "line 3.*is outside"),
    "several tables": (two_tables, "several tables. Found a.csv, b.csv"),
    "broken parquet": (text_file("t.parquet", b"PAR1" + bytes(50)), "not a readable Parquet file"),
    "a pickle called parquet": (text_file("t.parquet", pickle.dumps({"text": ["a"]})), "not a readable"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_gives_one_clear_message(name, tmp_path):
    make, words = MISTAKES[name]
    with pytest.raises(DataError, match=words) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("role", ["input_column", "label_column", "group_column"])
def test_a_column_that_does_not_exist_names_the_nearest(write, role, tmp_path):
    with pytest.raises(DataError, match=r"no column 'starz'\. Did you mean 'stars'"):
        read(write(tmp_path / "t"), **{role: "starz"})


def test_a_column_said_for_class_folders(tmp_path):
    with pytest.raises(DataError, match="class folders, which have no column 'species'"):
        read(class_folders(tmp_path, ant=1, bee=1), label_column="species")


def test_too_large_for_a_file_is_said_when_it_is_read(tmp_path, monkeypatch):
    class_folders(tmp_path, ant=1, bee=1)
    monkeypatch.setattr("outdo.data.inputs.MAX_BYTES", 100)
    assert images.MAX_BYTES > 100
    with pytest.raises(OSError, match="MB"):
        read(tmp_path).inputs.read(0)
