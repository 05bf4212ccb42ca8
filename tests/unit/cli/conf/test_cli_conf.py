"""re6st-conf as a user meets it, with a registry of a few lines in a thread."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.cli.conf import main as conf
from re6st.cli.conf import options
from re6st.cli.node import options as node_options
from re6st.keys import pki, requested_name
from tests.unit.enrolment_place import NETWORK, TOKEN, Registry, RunConf, fields_of, names, save_key

# --- enrolment ---


def test_anonymous(run: RunConf, registry: Registry, here: Path) -> None:
    result = run("--anonymous")
    assert result.code == 0
    assert names(here) == ["ca.crt", "cert.crt", "cert.key", "re6stnet.conf"]
    assert (here / "cert.key").stat().st_mode & 0o777 == 0o600
    identity = cert.Identity.load(here / "ca.crt", here / "cert.crt", here / "cert.key", datetime.now(UTC))
    assert identity.prefix.cn == "121/16"
    assert identity.key.key_size == 2048
    assert (here / "re6stnet.conf").read_text().splitlines()[:4] == [
        f"registry {registry.url}",
        "ca ca.crt",
        "cert cert.crt",
        "key cert.key",
    ]
    assert "country" not in (here / "re6stnet.conf").read_text()
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("Registry", "CA", "Key", "Request", "Cert", "Config", "Next", "Subnet")
    ]
    assert '"Example mesh", network 2001:db8:42::/48' in lines[1]
    assert "back it up" in lines[2]
    assert "2001:db8:42:79::/64 (CN=121/16)" in lines[-1]
    end = pki.end_of(identity.cert)
    assert f"valid until {end:%Y-%m-%dT%H:%MZ}" in lines[4]
    assert f"{end - timedelta(days=30):%Y-%m-%d}" in lines[4]
    assert f"sha256:{registry.fingerprint}" in result.err
    assert "warning" in result.err
    assert registry.methods == ["getCa", "requestCertificate"]
    assert registry.calls[1][1].keys() == {"token", "req", "location", "ip"}


def test_token_fields_and_location(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run(
        *("--token", TOKEN, "--fingerprint", f"sha256:{registry.fingerprint}", "--location", "FR,EU"),
        *("-r", "O", "Example Corp.", "--req", "emailAddress", "a@example.org"),
    )
    assert (result.code, result.err) == (0, "")
    assert fields_of(here / "cert.crt") == [
        (NameOID.ORGANIZATION_NAME, "Example Corp."),
        (NameOID.EMAIL_ADDRESS, "a@example.org"),
    ]
    assert registry.calls[1][1]["token"] == TOKEN
    assert registry.calls[1][1]["location"] == "FR,EU"
    assert "country FR" in (here / "re6stnet.conf").read_text().splitlines()


def test_the_sample_is_as_re6stnet_takes_it(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    run("--anonymous", "--location", "FR,EU")
    sample = here / "re6stnet.conf"
    values = node_options.parser().parse([f"@{sample}"])
    assert (values.registry, values.country) == ([registry.url], "FR")
    # The options it only suggests are good ones, too; a comment of words has a blank after its #.
    sample.write_text(re.sub(r"^#(?=\S)", "", sample.read_text(), flags=re.MULTILINE))
    values = node_options.parser().parse([f"@{sample}"])
    assert (values.verbose, values.ovpnlog, values.interface) == (3, True, ["eth0"])


def test_join_takes_all_from_one_paste(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    result = run("--join", f"{registry.url}#sha256:{registry.fingerprint},token={TOKEN}", url="")
    assert (result.code, result.err) == (0, "")
    assert registry.calls[1][1]["token"] == TOKEN
    assert "#" not in (here / "re6stnet.conf").read_text().splitlines()[0]
    assert run("--join", f"{registry.url}#sha256:{'0' * 64},token={TOKEN}", url="").code == 1
    assert run("--join", registry.url).code == 2


def test_join_as_a_mail_program_gives_it(run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    digits = registry.fingerprint.upper()
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    for text in (
        f"<{registry.url}#sha256:{digits[:20]}\n   {digits[20:]},\n   token={TOKEN}>.\n",
        f"{registry.url}#sha256 Fingerprint={colons},\u00a0token={TOKEN}",
        f"“{registry.url}#{digits}, token={TOKEN}”",
    ):
        result = run("--force", "--join", text, url="")
        assert (result.code, result.err) == (0, "")
        assert registry.calls[-1][1]["token"] == TOKEN
    assert (here / "re6stnet.conf").read_text().splitlines()[0] == f"registry {registry.url}"


def test_the_word_join_takes_an_invitation_in_parts(
    registry: Registry, here: Path, key: rsa.RSAPrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.mkdir()
    save_key(here, key)
    monkeypatch.setattr(options, "SERVICE_DIRECTORY", here)
    assert conf.main(["join", f"token={TOKEN}", f"<{registry.url}>", f"sha256:{registry.fingerprint}"]) == 0
    assert registry.calls[1][1]["token"] == TOKEN
    assert (here / "cert.crt").exists()
    other = tmp_path / "other"
    other.mkdir()
    save_key(other, key)
    line = f"re6st-conf join '{registry.url}#sha256:{registry.fingerprint},token={TOKEN}'\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    assert conf.main(["join", "-", "--dir", str(other)]) == 0
    assert (other / "cert.crt").exists()


def test_the_word_join_wants_token_and_fingerprint(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    for text, lacking in (
        (f"{registry.url}#sha256:{registry.fingerprint}", "no token"),
        (f"{registry.url}#token={TOKEN}", "no fingerprint"),
    ):
        with pytest.raises(SystemExit) as ended:
            conf.main(["join", text])
        assert ended.value.code == 2
        assert lacking in capsys.readouterr().err
    assert registry.calls == []


def test_nothing_is_written_where_the_subject_cannot_be(
    run: RunConf, registry: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such letter")

    monkeypatch.setattr(cert, "new_request", refuse)
    result = run("--anonymous", "-r", "O", "Example")
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last == "re6st-conf: the subject of the certificate: no such letter. Nothing was written."
    assert names(here) == []


def test_a_second_run_keeps_key_fields_and_configuration(run: RunConf, here: Path, key: rsa.RSAPrivateKey) -> None:
    save_key(here, key)
    assert run("--anonymous", "-r", "O", "Corp", "-r", "OU", "Unit", "-r", "L", "Lille").code == 0
    (here / "re6stnet.conf").write_text("mine")
    before = (here / "cert.key").read_bytes()
    result = run("--force", "--anonymous", "-r", "OU", "", "-r", "L", "Paris")
    assert result.code == 0
    assert (here / "cert.key").read_bytes() == before
    assert "existing one used again" in result.out
    assert (here / "re6stnet.conf").read_text() == "mine"
    assert fields_of(here / "cert.crt") == [(NameOID.ORGANIZATION_NAME, "Corp"), (NameOID.LOCALITY_NAME, "Paris")]
    assert "CN=122/16" in result.out


@pytest.mark.parametrize("status", [404, 500])
def test_a_registry_that_proves_nothing_is_not_asked_for_another_subnet_without_force(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey, status: int
) -> None:
    save_key(here, key)
    assert run("--anonymous").code == 0
    before = (here / "cert.crt").read_bytes()
    registry.answers["hello"] = status, b""
    result = run("--token", TOKEN)
    assert result.code == 1
    assert "does not seem to know this machine as 121/16 any more" in result.err
    assert "Give --force" in result.err
    assert (here / "cert.crt").read_bytes() == before
    assert registry.methods.count("requestCertificate") == 1


# --- the CA ---


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "SHA512", "md5", "sha3_256"])
def test_fingerprint_of_any_hash(run: RunConf, registry: Registry, here: Path, algorithm: str) -> None:
    digest = cert.fingerprint(registry.authority.trust.ca, algorithm.lower()).hex(":").upper()
    result = run("--ca-only", "--fingerprint", f"{algorithm}:{digest}")
    assert (result.code, result.err) == (0, "")
    assert names(here) == ["ca.crt"]


def test_wrong_fingerprint_writes_nothing(run: RunConf, registry: Registry, here: Path) -> None:
    for arguments in (["--anonymous"], ["--ca-only"], ["--is-needed"], ["--token", TOKEN]):
        result = run(*arguments, "--fingerprint", "sha256:" + "3f" * 32)
        assert result.code == 1
        assert f"the CA's fingerprint is sha256:{registry.fingerprint}, not sha256:3f3f" in result.err
        assert "Nothing was written" in result.err
        assert names(here) == []
    assert set(registry.methods) == {"getCa"}


@pytest.mark.parametrize("form", ["sha256 Fingerprint={}", "SHA256 Fingerprint={}\n", "{}", "sha256:{}"])
def test_a_fingerprint_as_openssl_prints_it(run: RunConf, registry: Registry, form: str) -> None:
    digest = cert.fingerprint(registry.authority.trust.ca, "sha256").hex(":").upper()
    assert run("--ca-only", "--fingerprint", form.format(digest)).code == 0
    assert run("--ca-only", "--fingerprint", form.format("00" + digest[2:])).code == 1


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha256:xyz", "sha256:1234", "nosuch:1234", ":12", "shake_128:", "sha256:é"]
)
def test_malformed_fingerprint_is_a_usage_error(run: RunConf, registry: Registry, text: str) -> None:
    result = run("--anonymous", "--fingerprint", text)
    assert result.code == 2
    assert "fingerprint" in result.err
    assert registry.methods == []


def test_an_unchecked_ca_must_be_the_one_we_know(
    run: RunConf, here: Path, key: rsa.RSAPrivateKey, registry: Registry
) -> None:
    (here / "ca.crt").write_bytes(cert.to_pem(cert.new_ca(key, NETWORK, "old", "o@example.org", registry.now)))
    before = (here / "ca.crt").read_bytes()
    result = run("--anonymous")
    assert result.code == 1
    assert "is not the one in" in result.err
    assert (here / "ca.crt").read_bytes() == before
    assert run("--ca-only", "--fingerprint", f"sha256:{registry.fingerprint}").code == 0
    assert (here / "ca.crt").read_bytes() != before


def test_is_needed(run: RunConf, here: Path) -> None:
    # No route to the documentation prefix leads from an address in it.
    result = run("--is-needed")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert names(here) == []


def test_is_not_needed_inside(run: RunConf, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of which routes it is told: tests/network/test_is_needed.py
    monkeypatch.setattr(conf, "is_inside", lambda network: network == NETWORK)
    result = run("--is-needed")
    assert (result.code, result.out, result.err) == (1, "", "")
    assert names(here) == []


def test_a_name_that_plays_with_the_terminal(run: RunConf, registry: Registry, ca_key: rsa.RSAPrivateKey) -> None:
    registry.authority = Registry(ca_key, name="\x1b[2Jmesh\n").authority
    result = run("--ca-only")
    assert '"?[2Jmesh?"' in result.out


def test_something_that_is_no_ca(run: RunConf, registry: Registry, here: Path) -> None:
    registry.answers["getCa"] = 200, b"<html>hello</html>"
    result = run("--anonymous")
    assert result.code == 1
    assert "bad answer to getCa" in result.err
    assert names(here) == []


def test_a_ca_without_a_network(run: RunConf, registry: Registry, here: Path, ca_key: rsa.RSAPrivateKey) -> None:
    ca = registry.authority.issue(registry.authority.trust.ca.subject, ca_key.public_key(), 1, registry.now)
    registry.answers["getCa"] = 200, cert.to_pem(ca)
    result = run("--anonymous")
    assert result.code == 1
    assert "contains no IPv6 prefix" in result.err
    assert names(here) == []


def test_several_registries_are_asked_in_turn_and_written_down(
    run: RunConf, registry: Registry, here: Path, key: rsa.RSAPrivateKey
) -> None:
    save_key(here, key)
    result = run("--registry", "http://127.0.0.1:1/", "--registry", registry.url, "--anonymous", url="")
    assert result.code == 0
    lines = (here / "re6stnet.conf").read_text().splitlines()
    assert lines[:2] == ["registry http://127.0.0.1:1/", f"registry {registry.url}"]
    assert run(*["--registry", registry.url] * 9, "--anonymous", url="").code == 2


# --- names ---


def asked_name(registry: Registry) -> tuple[str, bool]:
    """The name in the last request, and whether no other one will do."""
    request = cert.load_request(registry.calls[-1][1]["req"].encode())
    asked = requested_name.read(request)
    assert asked is not None
    return asked.name, asked.only


def test_it_asks_for_its_host_name(run: RunConf, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Web1.example.org")
    assert run("--token", TOKEN, "--fingerprint", f"sha256:{registry.fingerprint}").code == 0
    assert asked_name(registry) == ("web1", False)


def test_it_asks_for_the_name_that_is_given(run: RunConf, registry: Registry) -> None:
    outcome = run("--token", TOKEN, "--name", "www")
    assert "named www" in outcome.out
    assert asked_name(registry) == ("www", True)


def test_it_asks_for_no_name(run: RunConf, registry: Registry) -> None:
    assert run("--token", TOKEN, "--name", "").code == 0
    assert requested_name.read(cert.load_request(registry.calls[-1][1]["req"].encode())) is None


def test_what_is_no_name_is_no_call(run: RunConf, registry: Registry) -> None:
    outcome = run("--token", TOKEN, "--name", "Web_1")
    assert outcome.code == 2
    assert "--name 'Web_1' cannot be a name" in outcome.err
    assert not registry.calls


def test_a_name_that_another_machine_has(run: RunConf, registry: Registry) -> None:
    registry.answers["requestCertificate"] = 409, b""
    outcome = run("--token", TOKEN, "--name", "www")
    assert outcome.code == 5
    assert "another machine of this network is named www" in outcome.err
