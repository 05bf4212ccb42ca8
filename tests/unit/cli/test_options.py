"""Option files and one-line errors (wire.md 11.1)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from re6st import PROTOCOL
from re6st.cli.options import OptionParser, fail, integer


def parser() -> OptionParser:
    made = OptionParser("prog", "a program")
    made.add_argument("--registry", required=True)
    made.add_argument("--port", type=integer(0, 65535), default=80)
    made.add_argument("-4", dest="ipv4", default="0.0.0.0")
    made.add_argument("-O", dest="openvpn", action="append", default=[])
    made.add_argument("--pp", nargs=2, action="append", default=[])
    made.add_argument("--encrypt", action="store_true")
    made.add_verbosity(1)
    return made


def from_file(path: Path, text: str) -> argparse.Namespace:
    path.write_text(text)
    return parser().parse([f"@{path}"])


def test_a_file_gives_options_line_by_line(tmp_path: Path) -> None:
    options = from_file(
        tmp_path / "a.conf",
        "# comment\n\n  # another\nregistry http://x/\nv 3\nO--verb\nO --mute 3\nO '--a b'\npp 1194 udp\n"
        "  pp 443 tcp\nencrypt\n4 ''\n".replace("O --mute 3\n", ""),
    )
    assert options.registry == "http://x/"
    assert options.verbose == 3
    assert options.openvpn == ["--verb", "--a b"]
    assert options.pp == [["1194", "udp"], ["443", "tcp"]]
    assert options.encrypt is True
    assert options.ipv4 == ""


def test_files_include_files_and_the_command_line_wins_afterwards(tmp_path: Path) -> None:
    (tmp_path / "b.conf").write_text("port 8080\n")
    (tmp_path / "a.conf").write_text(f"registry http://x/\n@{tmp_path}/b.conf\n")
    assert parser().parse([f"@{tmp_path}/a.conf"]).port == 8080
    assert parser().parse([f"@{tmp_path}/a.conf", "--por", "81"]).port == 81


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("registry x\nport abc\n", "a.conf:2: argument --port: 'abc' is not a number between 0 and 65535"),
        ("registry x\nport 80\nport 99999\n", "a.conf:3: argument --port: '99999'"),
        ("registry x\nnonsense 1\n", "a.conf:2: unknown option 'nonsense'"),
        ("registry x # comment\n", "a.conf:1: unrecognized arguments: # comment"),
        ("O 'a'\nregistry “x y”\n", "a.conf:2: “ is a quote of a word processor: write ' or \" instead"),
        ("registry 'x\n", "a.conf:1: No closing quotation"),
        ("\npp 1\nregistry x\n", "a.conf:2: argument --pp: expected 2 arguments"),
        ("port 1\n", "the following arguments are required: --registry"),
        ("@/nonexistent/file\n", "option file /nonexistent/file: No such file"),
        ("@{}/a.conf\n", "it includes itself"),
    ],
)
def test_a_wrong_file_ends_with_status_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        from_file(tmp_path / "a.conf", text.format(tmp_path))
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("prog: ")
    assert error.count("\n") == 1
    assert says in error


def _nargs_pattern_of_3_13_5(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return "()" if action.nargs == 0 else f"([AO]{{{action.nargs or 1}}})"


@pytest.mark.parametrize("python", ["this", "3.13.5"])
@pytest.mark.parametrize(
    "argv",
    [
        ["--pp", "1194", "--registry", "x"],
        ["--registry", "x", "--pp", "1194", "--encrypt"],
        ["--registry", "x", "--pp", "--encrypt", "1194"],
        ["--registry", "x", "--pp", "1194", "-udp"],
        ["--registry", "x", "--pp", "1194", "--", "udp"],
        ["--registry", "x", "--pp", "1194"],
        ["--registry", "x", "--pp=1194", "udp"],
        ["--registry", "x", "--pp"],
    ],
)
def test_an_option_of_two_words_never_takes_the_next_option_for_one(
    python: str, argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if python == "3.13.5":
        monkeypatch.setattr(argparse.ArgumentParser, "_get_nargs_pattern", _nargs_pattern_of_3_13_5)
    with pytest.raises(SystemExit) as stopped:
        parser().parse(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "prog: argument --pp: expected 2 arguments. Try prog --help.\n"


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffregistry http://x/\r\nport 81\r\n".encode(),
        "registry\u00a0http://x/\n\u00a0 port\tu0\u202f81".replace("u0", "").encode(),
        b"registry\thttp://x/\rport 81",
        "registry http://x/\nport 81\n".encode("utf-16"),
        "registry 'http://x/'\u2028port \u200b81".encode(),
    ],
)
def test_a_file_of_another_editor(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.conf").write_bytes(data)
    options = parser().parse([f"@{tmp_path}/a.conf"])
    assert (options.registry, options.port) == ("http://x/", 81)


@pytest.mark.parametrize("argument", ["--registry=m\udcf6", "m\udcf6", "@m\udcf6"])
def test_arguments_that_are_not_utf8_end_with_one_line(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse([argument])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "argument 1" in err
    assert "is not in UTF-8" in err
    assert err.count("\n") == 1


def test_version_names_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse(["-V"])
    assert stopped.value.code == 0
    assert f"protocol {PROTOCOL}" in capsys.readouterr().out


def test_fail_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fail("prog", "/x: gone. Look.", 3)
    assert stopped.value.code == 3
    assert capsys.readouterr().err == "prog: /x: gone. Look.\n"


def test_a_file_that_anybody_may_write_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon runs commands that stand there, as root."""
    path = tmp_path / "a.conf"
    path.write_text("registry http://x/\n")
    path.chmod(0o646)
    with pytest.raises(SystemExit) as ended:
        parser().parse([f"@{path}"])
    assert ended.value.code == 2
    assert f"prog: option file {path}: anybody may write to it. Run chmod o-w {path}." in capsys.readouterr().err
    path.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(SystemExit):
        parser().parse([f"@{path}"])
    assert f"anybody may replace it in its directory. Run chmod o-w {tmp_path}." in capsys.readouterr().err
    tmp_path.chmod(0o1777)
    assert parser().parse([f"@{path}"]).registry == "http://x/", "as /tmp is: others can replace nothing there"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_root_is_told_of_a_file_that_another_user_may_write(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("registry http://x/\n")
    of_root = parser()
    of_root.parse([f"@{path}"])
    assert of_root.warnings == []
    os.chown(path, 64001, 64001)
    of_another = parser()
    of_another.parse([f"@{path}"])
    assert of_another.warnings == [
        f"option file {path} belongs to the user 64001, who could have root do anything: run chown root {path}"
    ]
