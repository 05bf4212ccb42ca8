"""Text that a person pasted is taken, in whatever form it came through a mail, a chat or a word processor."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from re6st import cert
from re6st.view import pasted

DIGEST = hashlib.sha256(b"the CA").digest()
HEX, COLONS = DIGEST.hex(), DIGEST.hex(":").upper()
URL, TOKEN = "https://re6st.example.com/", "qwertzuiopasdfghjk"
INVITATION = f"{URL}#sha256:{HEX},token={TOKEN}"


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{HEX}",
        f"SHA256:{HEX.upper()}",
        f"sha256:{COLONS}",
        f"sha256 Fingerprint={COLONS}",
        f"SHA256 Fingerprint={COLONS}\n",
        f"SHA-256: {COLONS}",
        HEX,
        COLONS,
        f" {HEX}\r\n",
        f"sha256:{HEX}.",
        f"<sha256:{HEX}>",
        f"“sha256:{HEX}”",
        f"\ufeffsha256:{HEX}",
        f"sha256:\u00a0{HEX}",
        f"sha256:{HEX[:30]}\n    {HEX[30:]}",
        f"> sha256:{HEX[:30]}\n> {HEX[30:]}",
        " ".join(HEX[at : at + 4] for at in range(0, 64, 4)),
        f"SHA\u2011256:{HEX}",
    ],
)
def test_fingerprints(text: str) -> None:
    name, digest = pasted.fingerprint(text)
    assert (name.replace("-", ""), digest) == ("sha256", DIGEST)


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha256:xyz", ":12", "ab:cd", HEX[:40], f"{HEX}0", "sha256:é"]
)
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        pasted.fingerprint(text)


def test_openssl_prints_what_we_take(tmp_path: Path, vector: Any) -> None:
    path = tmp_path / "ca.crt"
    path.write_text(vector("pki")["ca_crt"])
    own = cert.load_pem(path.read_bytes())
    for algorithm in ("sha256", "sha512"):
        argv = ["openssl", "x509", "-noout", "-fingerprint", f"-{algorithm}", "-in", str(path)]
        printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert pasted.fingerprint(printed) == (algorithm, cert.fingerprint(own, algorithm))


@pytest.mark.parametrize(
    "text",
    [
        INVITATION,
        f"<{INVITATION}>",
        f"{INVITATION}.",
        f"“{INVITATION}”",
        f"«{INVITATION}».",
        f"'{INVITATION}'",
        f"\ufeff{INVITATION}\r\n",
        f"{URL}#sha256:{HEX}, token={TOKEN}",
        f"{URL}#sha256:{HEX},\u00a0token={TOKEN}",
        f"{URL}\n    #sha256:{HEX[:20]}\n    {HEX[20:]},\n    token={TOKEN}\n",
        f"> {URL}#sha256:{HEX[:20]}\n> {HEX[20:]},token={TOKEN}",
        f"{URL}#sha256:{COLONS},Token={TOKEN}",
        f"{URL}#{HEX},token={TOKEN}",
        f"{URL}#token={TOKEN},sha256:{HEX}",
        f"https://re6st.exam\u00adple.com/#sha256:{HEX},token={TOKEN}",
        f"token={TOKEN},sha256:{HEX},{URL}",
        f"sha256:{HEX},{URL}#token={TOKEN}",
        f"{URL}\nsha256:{HEX}\ntoken={TOKEN}",
        f"token={TOKEN} <{URL}> {HEX}",
        f"{URL}#sha256:{HEX};token={TOKEN}",
        f"{URL}%23sha256%3A{HEX}%2Ctoken%3D{TOKEN}",
        f"re6st-conf --join '{INVITATION}'",
        f"$ sudo re6st-conf join '{INVITATION}'",
        f"re6st-conf —join ‘{INVITATION}’",
        f"re6st-conf join \\\n  '{INVITATION}'",
    ],
)
def test_invitations(text: str) -> None:
    url, expected, token = pasted.invitation(text)
    assert (url, token) == (URL, TOKEN)
    assert expected is not None
    assert pasted.fingerprint(expected) == ("sha256", DIGEST)


def test_a_comma_may_be_in_the_url() -> None:
    assert pasted.invitation(f"http://example.com/a,b/#token={TOKEN}") == ("http://example.com/a,b/", None, TOKEN)


@given(st.permutations([URL, f"sha256:{HEX}", f"token={TOKEN}"]), st.sampled_from([" ", "\n", ",", ", ", " ; "]))
def test_the_parts_may_come_in_any_order(parts: list[str], between: str) -> None:
    url, expected, token = pasted.invitation(between.join(parts))
    assert (url, token) == (URL, TOKEN)
    assert expected is not None
    assert pasted.fingerprint(expected) == ("sha256", DIGEST)


def test_a_token_that_an_operator_chose_stays_as_it_is() -> None:
    for token in ("two.", "a-b", "(x)", "it's"):
        assert pasted.token(f" {token}\n") == token
        assert pasted.invitation(f"{URL}#token={token}")[2] == token


FORMS: dict[str, Callable[[str], str]] = {
    "indented": lambda text: "\n".join(f"    {line}" for line in text.splitlines()),
    "quoted": lambda text: "\n".join(f"\t {line}  " for line in text.splitlines()),
    "on one line": lambda text: " ".join(text.splitlines()),
    "base64 on one line": lambda text: (
        text.replace("\n", "").replace("E-----", "E-----\n").replace("Y-----", "Y-----\n")
    ),
    "CR only": lambda text: text.replace("\n", "\r"),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "no newline at the end": str.strip,
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "no-break spaces": lambda text: "\n".join(f"\u00a0{line}\u00a0" for line in text.splitlines()),
    "no-break spaces in the middle": lambda text: text.replace(" ", "\u00a0"),
    "BOM": lambda text: f"\ufeff{text}",
    "dashes": lambda text: text.replace("-----", "\u2014\u2014\u2013"),
    "text around": lambda text: f"here is the\nfile: \n{text}\nregards\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_pem(form: str, vector: Any) -> None:
    """As every reader of PEM takes it, and the same for one that is right already."""
    pki = vector("pki")
    for text in (pki["ca_crt"], pki["nodes"][1]["crt"], pki["nodes"][1]["key"], pki["ca_crt"] + pki["nodes"][1]["crt"]):
        assert pasted.pem(FORMS[form](text).encode()).decode() == text
    assert pasted.pem(f"\ufeff{pki['ca_crt']}".encode("utf-16-le")).decode() == pki["ca_crt"]


def test_what_is_no_pem_is_left() -> None:
    for data in (b"", b"x\n", b"\xff\0\x80", b"-----BEGIN X-----\n!\n-----END X-----\n", b"-----BEGIN X-----\nAAAA\n"):
        assert pasted.pem(data) == data
    encrypted = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    assert pasted.pem(encrypted) == encrypted


def test_lines_and_quotes() -> None:
    assert pasted.lines("\ufeffa\u00a0b\r\nc\rd\u2028e\tf\u200b") == "a b\nc\nd\ne\tf"
    assert pasted.typography("O “Example Corp”") == "“"
    assert pasted.typography("O 'Example' \"Corp\" `x`") is None


@given(st.text())
def test_any_text_is_stood(text: str) -> None:
    url, _, _ = pasted.invitation(text)
    assert not any(each.isspace() for each in url)
    once = pasted.pem(text.encode("utf-8", "surrogatepass"))
    assert pasted.pem(once) == once


@given(st.binary())
def test_any_bytes_are_stood(data: bytes) -> None:
    pasted.pem(data)


def test_a_key_on_a_curve_that_the_library_lacks_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cert.key"
    subprocess.run(["openssl", "ecparam", "-name", "secp224k1", "-genkey", "-noout", "-out", str(path)], check=True)
    with pytest.raises(cert.CertError, match="not a private key in PEM form") as caught:
        cert.load_private_key(cert.read_file(path), "cert.key")
    assert "\n" not in str(caught.value)


def test_a_key_for_another_kind_of_signature_is_taken_as_one_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "cert.key"
    argv = ["openssl", "genpkey", "-algorithm", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    key = cert.load_private_key(cert.read_file(path), "cert.key")
    written = cert.key_to_pem(key)
    found = subprocess.run(["openssl", "pkey", "-noout", "-text"], input=written, capture_output=True, check=True)
    assert b"PSS" not in found.stdout
    assert serialization.load_pem_private_key(written, None)
