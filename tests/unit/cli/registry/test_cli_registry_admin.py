"""The words of re6st-registry as the operator meets them, with a registry that runs and with only its file."""

from __future__ import annotations

import io
import re
import shlex
import sqlite3
import sys
from pathlib import Path

import pytest

from re6st import cert
from re6st.cli.conf import main as conf
from re6st.cli.registry import output
from re6st.core.prefix import Prefix
from tests.unit.cli.registry.test_cli_registry import Process, free_port, wait_until
from tests.unit.operator_place import Place, Terminal

# --- nodes ---


def test_nodes(place: Place) -> None:
    head, *rows = place.word("nodes").out.splitlines()
    names = [
        "CN",
        "NAME",
        "STATE",
        "SUBNET",
        "ADDRESS",
        "E-MAIL",
        "ISSUED",
        "EXPIRES",
        "LAST",
        "CALL",
        "VERSION",
        "TAGS",
    ]
    assert head.split() == names
    assert len(rows) == 3
    assert [row.index("2001:db8:42:") for row in rows] == [head.index("SUBNET")] * 3
    assert rows[1].split()[:6] == ["1/16", "-", "-", "2001:db8:42:1::/64", "2001:db8:42:1::1", "alice@example.org"]
    assert re.search(r"in 365 days +\d+ (s|min) ago +1\.5 \(p10\) +-$", rows[1])
    assert re.search(r"in 365 days +- +- +-$", rows[2])
    found = place.word("nodes", "--json").json["nodes"]
    assert [(node["cn"], node["email"], node["registry"]) for node in found] == [
        ("0/16", None, True),
        ("1/16", "alice@example.org", False),
        ("2/16", "bob@example.org", False),
    ]
    assert {key: found[1][key] for key in ("prefix", "subnet", "address", "serial", "number", "version")} == {
        "prefix": "0000000000000001",
        "subnet": "2001:db8:42:1::/64",
        "address": "2001:db8:42:1::1",
        "serial": 2,
        "number": 1,
        "version": "1.5, Linux",
    }


def test_nodes_that_are_wanted(place: Place) -> None:
    def found(*arguments: str) -> list[str]:
        return [node["cn"] for node in place.word("nodes", "--json", *arguments).json["nodes"]]

    assert found("--expiring", "30d") == []
    assert found("--expiring", "366d") == ["0/16", "1/16", "2/16"]
    assert found("--unseen", "1d") == ["0/16", "2/16"]
    assert found("--email", "bob@example.org") == ["2/16"]
    for state in ("--online", "--offline"):
        assert "nobody knows who is online" in place.refused(1, "nodes", state), "there is no babeld"
    assert "--online" in place.refused(2, "nodes", "--online", "--offline")
    assert "cannot be combined" in place.refused(2, "nodes", "1/16", "--offline")


def test_tags(place: Place) -> None:
    assert place.word("tag", "1/16").out.split() == ["node", "1/16", "tags", "-"]
    assert place.word("tag", "1/16", "web", "paris").out.split() == ["node", "1/16", "tags", "paris", "web"]
    assert place.word("tag", "2/16", "web", "--json").json["node"]["tags"] == ["web"]
    assert re.search(r"^tags +paris web$", place.word("nodes", "1/16").out, re.M)
    with_web = place.word("nodes", "--tag", "web", "--json").json["nodes"]
    assert [node["cn"] for node in with_web] == ["1/16", "2/16"]
    (both,) = place.word("nodes", "--tag", "web", "--tag", "paris", "--json").json["nodes"]
    assert both["cn"] == "1/16"
    for wrong in ("Web", "-web", "a_b", "x" * 33, "é"):
        assert "is no tag" in place.refused(2, "tag", "1/16", "--", wrong)
    assert "at most 16" in place.refused(2, "tag", "1/16", *(f"t{number}" for number in range(17)))
    assert "no such node" in place.refused(3, "tag", "9/16", "web")
    place.word("tag", "1/16", "--none")
    assert place.word("nodes", "1/16", "--json").json["nodes"][0]["tags"] == []


def test_one_node(place: Place) -> None:
    for target in ("1/16", "2", "2001:db8:42:1::7"):
        (node,) = place.word("nodes", target, "--json").json["nodes"]
        assert node["cn"] == "1/16"
    shown = place.word("nodes", "0/16").out
    assert re.search(r"^CN +0/16 \(the registry's own node\)$", shown, re.M)
    assert re.search(r"^expires +\d{4}-\d\d-\d\dT[0-9:]{8}Z, in 365 days$", shown, re.M)
    assert "9/16: no such node" in place.refused(3, "nodes", "9/16")
    assert "alice: no such node" in place.refused(3, "nodes", "alice")
    assert "is not a name, a CN" in place.refused(2, "nodes", "Alice")


# --- names ---


def test_a_node_gets_a_name_and_is_found_by_it(place: Place) -> None:
    assert place.word("name", "1/16").out == "name  1/16  -\n"
    assert place.word("name", "1/16", "web1").out == "name  1/16  web1; before: none\n"
    assert place.word("name", "2001:db8:42:1::1", "web1").out == "name  1/16  web1\n"
    assert "1/16 has the name web1 already" in place.refused(4, "name", "2/16", "web1").replace("2001:db8", "")
    assert "cannot be a name" in place.refused(2, "name", "2/16", "Web_1")
    assert "no such node" in place.refused(3, "name", "web2", "web3")
    assert place.word("nodes", "web1", "--json").json["nodes"][0]["cn"] == "1/16"
    assert re.search(r"^1/16 +web1 +- +2001:", place.word("nodes").out, re.M)
    assert place.word("name", "web1", "www").out == "name  1/16  www; before: web1\n"
    assert place.word("name", "2/16", "web1").status == 0
    assert place.word("name", "www", "--remove").out == "name  1/16  -; before: www\n"
    assert place.word("revoke", "web1", "--yes").out.startswith("revoked  2/16 web1, serial 3")
    assert place.word("name", "1/16", "web1").status == 0, "who is gone has no name any more"


# --- tokens ---


def test_an_invitation_enrols(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = place.process.port if place.process else free_port()
    carol = ("invite", "carol@example.org", "--prefix-length", "20", "--expires", "7d")
    made = place.word(*carol, "--url", f"http://127.0.0.1:{port}/", "--json").json
    assert (made["email"], made["prefix_length"]) == ("carol@example.org", 20)
    assert shlex.split(made["join"])[-1] == f"{made['url']}#{made['fingerprint']},token={made['token']}"
    started = place.process or Process(place.directory, "--port", str(port))
    started.port = port
    try:
        wait_until(started.answers)
        program, *arguments = shlex.split(made["join"])
        assert (program, arguments[0]) == ("re6st-conf", "join")
        home = tmp_path / "node"
        home.mkdir()
        assert conf.main([*arguments, "--dir", str(home)]) == 0
        prefix = cert.prefix_of_cert(cert.load_pem((home / "cert.crt").read_bytes()))
        assert prefix.length == 20
        (node,) = place.word("nodes", "--email", "carol@example.org", "--json").json["nodes"]
        assert node["cn"] == prefix.cn
        assert place.word("tokens", "--json").json["tokens"] == []
    finally:
        if place.process is None:
            started.process.terminate()
            assert started.finish() == (0, "")


def test_an_invitation_as_shown(place: Place) -> None:
    outcome = place.word("invite", "--url", "https://re6st.example.com/")
    token, who, blank, join = outcome.out.splitlines()[:4]
    assert (who, blank) == ("Who has it runs this as root:", "")
    assert re.fullmatch(r"token  [a-z]{18}   prefix /16   until \d{4}-\d\d-\d\dT[0-9:]{8}Z", token)
    assert re.fullmatch(r"re6st-conf join 'https://re6st.example.com/#sha256:[0-9a-f]{64},token=[a-z]{18}'", join)
    assert outcome.err == ""
    guessed = place.word("invite")
    assert "a guess" in guessed.err
    assert "join 'http://" in guessed.out
    with (place.directory / "re6st-registry.conf").open("a") as file:
        file.write("url https://mesh.example.com\n")
    assert "join 'https://mesh.example.com#sha256:" in place.word("invite").out


def test_an_invitation_as_a_code_for_a_telephone(place: Place) -> None:
    plain = place.word("invite", "--url", "http://x/").out
    shown = place.word("invite", "--url", "http://x/", "--qr").out
    code = shown[len(plain) :].splitlines()
    assert len(code) > 20
    assert set("".join(code)) <= set(" \u2580\u2584\u2588")


def test_tokens(place: Place) -> None:
    made = place.word("invite", "carol@example.org", "--expires", "7d", "--url", "http://x/", "--json").json
    (token,) = place.word("tokens", "--json").json["tokens"]
    assert {key: made[key] for key in token if key != "expired"} | {"expired": False} == token
    head, row = place.word("tokens").out.splitlines()
    assert head.split() == ["TOKEN", "E-MAIL", "PREFIX", "CREATED", "EXPIRES", "LEFT", "TAGS"]
    assert row.split()[:3] == [made["token"], "carol@example.org", "/16"]
    assert re.search(r"in 7 days +1 +-$", row)
    assert place.word("tokens", "--delete", made["token"], "--json").json == {"schema": 1, "deleted": made["token"]}
    assert "unknown" in place.refused(3, "tokens", "--delete", made["token"])


def test_an_invitation_for_several_machines(place: Place) -> None:
    many = ("invite", "--reusable", "20", "--tag", "web", "--tag", "paris", "--url", "http://x/")
    shown = place.word(*many).out.splitlines()
    assert shown[0].endswith("for 20 machines   tags paris web")
    assert shown[1] == "Each of the machines runs this as root:"
    (token,) = place.word("tokens", "--json").json["tokens"]
    assert (token["uses"], token["tags"]) == (20, ["paris", "web"])
    assert "--reusable" in place.refused(2, "invite", "--reusable", "0")
    assert "is no tag" in place.refused(2, "invite", "--tag", "a b,c")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prefix-length", "79"),
        ("--prefix-length", "0"),
        ("--expires", "soon"),
        ("--expires", "0d"),
        ("--url", "ftp://x/"),
        ("nobody",),
        ("a@b", "c@d"),
    ],
)
def test_an_invitation_that_makes_no_sense(resting: Place, arguments: tuple[str, ...]) -> None:
    resting.refused(2, "invite", *arguments)


# --- revoking ---


def test_revoke_by_cn(place: Place) -> None:
    outcome = place.word("revoke", "1/16", "--yes", "--reason", "stolen", "--json")
    assert (outcome.json["node"]["email"], outcome.json["subnet_kept"]) == ("alice@example.org", False)
    assert ("does not run" in outcome.err) == (place.process is None)
    assert "no such node" in place.refused(3, "revoke", "1/16", "--yes")
    (listed,) = place.word("revoked", "--json").json["revoked"]
    assert (listed["serial"], listed["cn"], listed["email"], listed["reason"]) == (
        *(2, "1/16", "alice@example.org"),
        "stolen",
    )
    assert place.word("params", "--json").json["parameters"]["crl"] == [2]
    head, row = place.word("revoked").out.splitlines()
    assert head.split() == ["SERIAL", "CN", "E-MAIL", "REVOKED", "REASON", "LISTED", "UNTIL"]
    assert row.split()[:3] == ["2", "1/16", "alice@example.org"]


def test_revoke_by_serial(place: Place) -> None:
    assert "its subnet is kept" in place.word("revoke", "2", "--yes").out
    assert "revoked already" in place.refused(4, "revoke", "2", "--yes")
    assert place.word("nodes", "1/16", "--json").json["nodes"][0]["revoked"]


def test_revoke_asks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "Give --yes" in place.refused(2, "revoke", "1/16")
    assert "will be out" not in place.word("revoke", "1/16").err, "nobody is asked, so nothing is announced"
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    outcome = place.word("revoke", "1/16")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.endswith("Revoke it? [y/N] re6st-registry revoke: nothing was revoked\n")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    outcome = place.word("revoke", "1/16")
    assert outcome.out.startswith("revoked  1/16, serial 2, alice@example.org")
    assert "alice@example.org" in outcome.err
    assert "will be out of the network" in outcome.err, "it is not yet, when that is asked"


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_the_registry_s_own_node_is_not_revoked(
    place: Place, monkeypatch: pytest.MonkeyPatch, yes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    line = place.refused(4, "revoke", "0/16", *yes)
    assert "0/16 is the registry's own node, and is not revoked" in line
    assert "re6st-conf rekey" in line
    assert place.word("nodes", "0/16", "--json").json["nodes"][0]["cn"] == "0/16"


def test_another_node_takes_the_place_of_the_registry_s_own(place: Place) -> None:
    assert place.word("own-node").out == "own node  0/16; it has a certificate\n"
    outcome = place.word("own-node", "1/16")
    assert outcome.out.startswith("own node  1/16; instead of 0/16; parameters of the network: version ")
    assert place.word("own-node", "1/16").out == "own node  1/16; it was already\n"
    assert place.word("params", "--json").json["registry"] == "1/16"
    assert place.word("revoke", "0/16", "--yes").status == 0
    assert "is the registry's own node" in place.refused(4, "revoke", "1/16", "--yes")
    assert "no such node" in place.refused(3, "own-node", "9/16")


def test_a_registry_that_lost_its_node_says_so_and_gets_it_back(place: Place, tmp_path: Path) -> None:
    """Earlier versions revoked it when they were told to."""
    evict_own_node(place)
    assert "no certificate, so the network gets no news" in place.word("own-node").out
    outcome = place.word("check")
    assert outcome.status == 1
    assert "warning  The registry's own node 0/16 has no certificate (was it revoked?)" in outcome.out
    assert place.word("backup", str(tmp_path / "copy")).status == 0, "the database itself is good"
    assert place.word("own-node", "1/16").status == 0
    assert place.word("check").out.startswith("ok  ")


def evict_own_node(place: Place) -> None:
    """As earlier versions did, with the registry stopped or not: what it knows is in the file."""
    with sqlite3.connect(place.directory / "r.db", timeout=20) as db:
        db.execute("UPDATE cert SET cert = 'reserved', email = NULL WHERE prefix = ?", (Prefix(0, 16).bits,))
    db.close()


# --- the network ---


def test_rotate(place: Place) -> None:
    assert place.word("rotate", "--status", "--json").json["state"] == "stable"
    for state, hint in (("phase 1", "to sign with it"), ("phase 2", "forget the old one"), ("stable", "nothing to do")):
        version = place.word("params", "--json").json["version"]
        step = place.word("rotate", "--force", "--json").json
        assert (step["state"], step["changed"], step["version"]) == (state, True, version + 1)
        assert hint in step["next"]
        again = place.word("rotate", "hmac", "--status", "--json").json
        assert again == step | {"changed": False}
    assert re.match(r"state +stable\nversion +\d+\nnext +nothing to do", place.word("rotate", "--status").out)


def test_the_next_step_of_a_rotation_is_not_made_before_its_time(place: Place) -> None:
    assert place.word("rotate", "--json").json["state"] == "phase 1"
    line = place.refused(4, "rotate")
    assert re.search(r"the next step is due 20\d\d-.*Z: .* Nothing was changed\. Give --force", line)
    assert place.word("rotate", "--status", "--json").json["state"] == "phase 1"


def test_hellos(place: Place) -> None:
    shown = place.word("hellos", "--json").json
    assert (shown["hellos"], shown["older_nodes"], shown["short_from"]) == ("long", ["1/16"], None)
    assert re.search(r"^why +these nodes of older software need long ones: 1/16$", place.word("hellos").out, re.M)
    refused = place.word("hellos", "--short")
    assert (refused.status, "need long hellos: 1/16" in refused.err) == (4, True)
    place.word("revoke", "1/16", "--yes")
    assert re.search(r"^why .*: short ones from .*Z, or at once with --short$", place.word("hellos").out, re.M)
    assert place.word("hellos", "--short", "--json").json["hellos"] == "short"


def test_params(place: Place) -> None:
    shown = place.word("params", "--json").json
    assert (shown["registry"], shown["keys"], shown["parameters"]["hello"]) == ("0/16", "stable", 4)
    text = place.word("params").out
    assert re.search(r"^registry_prefix +0/16$", text, re.M)
    assert "hmac" not in text


def test_the_mesh_without_a_node_beside(place: Place) -> None:
    assert place.word("versions", "--json").json["versions"] == [
        {"cn": "0/16", "prefix": "0" * 16, "version": None},
    ]
    assert "no answer" in place.word("versions").out
    assert place.word("topology", "--json").json["topology"] == []
    assert place.word("topology", "--dot").out == "digraph re6st {\n}\n"


def test_a_graph_for_graphviz(resting: Place) -> None:
    record = {
        "topology": [
            {"cn": "0/16", "answered": True, "tunnels_to": ["1/16"]},
            {"cn": "1/16", "answered": False, "tunnels_to": []},
        ]
    }
    options = type("Options", (), {"dot": True})()
    assert output.topology(record, options).splitlines() == [
        "digraph re6st {",
        '  "0/16";',
        '  "1/16" [style=dashed];',
        '  "0/16" -> "1/16";',
        "}",
    ]
