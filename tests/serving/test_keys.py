"""API keys: shown once, hashed at rest, gone when revoked."""

import json
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outdo import cli
from outdo.errors import UserError
from outdo.serving.keys import KeyFile


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(KeyFile, "CHECK_SECONDS", 0)
    return KeyFile(tmp_path / "keys.json")


def test_a_key_opens_and_its_neighbours_do_not(file):
    key = file.add("phone", rate=5)
    other = file.add("web")
    assert file.who(key).name == "phone"
    assert file.who(key).rate == 5
    assert file.who(other).name == "web"
    for wrong in ("", "outdo_", key[:-1], key + "x", key[:-1] + ("a" if key[-1] != "a" else "b"), key.upper(),
                  key[:18] + other[18:], "outdo_" + "0" * 12 + key[18:]):
        assert file.who(wrong) is None


def test_neither_key_nor_secret_is_written(file, tmp_path):
    key = file.add("phone")
    for path in tmp_path.iterdir():
        assert key.rpartition("_")[2] not in path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_two_keys_of_one_secret_would_not_look_alike(file):
    from outdo.serving.keys import _hash

    file.add("a")
    file.add("b")
    salts = [entry["salt"] for entry in json.loads(file.path.read_text())["keys"]]
    assert _hash("same", salts[0]) != _hash("same", salts[1])


def test_a_running_server_sees_changes(file):
    key = file.add("phone")
    server = KeyFile(file.path)
    assert server.who(key)
    file.revoke("phone")
    assert server.who(key) is None
    again = file.add("phone")
    assert server.who(again)
    assert server.who(key) is None
    file.path.unlink()
    assert server.who(again) is None


def test_keys_that_are_added_at_once_are_all_kept(file):
    threads = [threading.Thread(target=KeyFile(file.path).add, args=(f"k{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in file.list()} == {f"k{i}" for i in range(12)}


def test_mistakes(file):
    file.add("phone")
    with pytest.raises(UserError, match="already"):
        file.add("phone")
    with pytest.raises(UserError, match="Did you mean 'phone'"):
        file.revoke("phome")
    for name in ("", "../x", "a b", "-x", "é", "x" * 65):
        with pytest.raises(UserError, match="no name"):
            file.add(name)
    file.path.write_text('{"keys": [{"name": 1}]}')
    with pytest.raises(UserError, match="no key file"):
        file.list()


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(tmp_path_factory, said):
    assert KeyFile(tmp_path_factory.getbasetemp() / "none.json").who(said) is None


def test_the_command(tmp_path, capsys):
    file = str(tmp_path / "keys.json")
    assert cli.main(["keys", "add", "phone", "--file", file, "--rate", "2.5"]) == 0
    key = capsys.readouterr().out.strip()
    assert KeyFile(file).who(key).rate == 2.5
    assert cli.main(["keys", "list", "--file", file]) == 0
    listed = capsys.readouterr().out
    assert "phone" in listed
    assert "2.5 inputs/s" in listed
    assert key not in listed
    assert cli.main(["keys", "revoke", "phone", "--file", file]) == 0
    assert KeyFile(file).list() == []
    assert cli.main(["keys", "add", "--file", file]) == 2
    assert "needs a name" in capsys.readouterr().err
