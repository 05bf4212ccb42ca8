"""Files of certificates and keys that we read and OpenVPN does not are found, and put right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from re6st import cert
from re6st.client.files import Files
from re6st.linux import disk
from re6st.noded import pem_files
from tests.unit.view.test_pasted import FORMS


@pytest.fixture
def files(tmp_path: Path, vector: Callable[[str], Any]) -> Files:
    pki = vector("pki")
    files = Files(*(tmp_path / name for name in ("ca.crt", "cert.crt", "cert.key")))
    for path, text in zip((files.ca, files.cert, files.key), texts(pki), strict=True):
        path.write_text(text)
    files.key.chmod(0o600)
    return files


def texts(pki: Any) -> tuple[str, str, str]:
    return pki["ca_crt"], pki["nodes"][1]["crt"], pki["nodes"][1]["key"]


def openvpn_reads(files: Files) -> bool:
    """As OpenVPN loads them."""
    context = SSL.Context(SSL.TLS_METHOD)
    try:
        context.load_verify_locations(str(files.ca))
        context.use_certificate_file(str(files.cert))
        context.use_privatekey_file(str(files.key))
        context.check_privatekey()
    except SSL.Error:
        return False
    return True


def test_files_as_they_were_issued_stay(files: Files) -> None:
    before = {path: path.stat().st_ino for path in (files.ca, files.cert, files.key)}
    pem_files.rewrite(files)
    assert {path: path.stat().st_ino for path in before} == before
    assert openvpn_reads(files)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_put_right(form: str, files: Files, vector: Callable[[str], Any]) -> None:
    for path in (files.ca, files.cert, files.key):
        path.write_bytes(FORMS[form](path.read_text()).encode())
    reads, found = openvpn_reads(files), list(pem_files.unreadable(files))
    assert reads == (not found)
    pem_files.rewrite(files)
    assert openvpn_reads(files)
    assert list(pem_files.unreadable(files)) == []
    assert files.key.stat().st_mode & 0o777 == 0o600
    for path, text in zip((files.ca, files.cert), texts(vector("pki"))[:2], strict=True):
        assert cert.load_pem(path.read_bytes()) == cert.load_pem(text.encode())


def test_a_key_for_another_kind_of_signature_becomes_one_for_ours(files: Files) -> None:
    argv = ["openssl", "genpkey", "-algorithm", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(files.key)]
    subprocess.run(argv, check=True, capture_output=True)
    assert list(pem_files.unreadable(files)) == [files.key]
    pem_files.rewrite(files)
    assert list(pem_files.unreadable(files)) == []


def test_one_that_cannot_be_written_is_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.cert.write_text(FORMS["indented"](files.cert.read_text()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "replace_file", full)
    with pytest.raises(cert.CertError, match=r"cert\.crt: OpenVPN cannot read its form.*No space left"):
        pem_files.rewrite(files)
