"""Text that a person pasted: out of a mail, a chat, a wiki, a word processor or the output of openssl.

On its way it gets other blanks and line ends, a mark at its beginning, quotes and dashes of typography. What it says is
clear all the same, so it is taken; what is not clear is left for who reads it, to complain about.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

ALGORITHMS = {64: "sha256", 96: "sha384", 128: "sha512"}
"""Of a fingerprint without the name of one, by its hex digits. Nobody should trust one that is shorter."""
TOKEN_LENGTHS = (8, 18)
"""Letters of the tokens that registries make: of the older software, and ours."""
PEM_COLUMNS = 64
"""Characters of base64 in a line (RFC 7468)."""

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_QUOTES = {"'": "\u2018\u2019\u201a\u201b\u2039\u203a`\u00b4", '"': "\u201c\u201d\u201e\u201f\u00ab\u00bb"}
_NOTHING = "\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f"
"""Characters without width: the mark at the beginning of a file (BOM), and places where a line may break."""
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_TYPOGRAPHY = {ord(each): "-" for each in _DASHES} | {
    ord(each): plain for plain, others in _QUOTES.items() for each in others
}
_FINGERPRINT = re.compile(
    # A name of an algorithm has some letter that is no digit.
    r"(?:(?=[\w-]*[g-z])([\w-]*?)(?:fingerprint)?[:=])?((?:[0-9a-f]{2}:?)+)"
)
_PEM = re.compile(
    rf"[-{_DASHES}]+\s*BEGIN ([A-Z0-9 ]+?)\s*[-{_DASHES}]+(.*?)[-{_DASHES}]+\s*END \1\s*[-{_DASHES}]+", re.S
)


def text(data: bytes) -> str:
    """The text in a file: UTF-8, or the UTF-16 of some editors. Raises UnicodeDecodeError."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")


def lines(pasted: str) -> str:
    """A text with plain blanks and line ends, and nothing that cannot be seen. Tabs stay."""
    plain = _LINE_ENDS.sub("\n", pasted)
    return "".join(" " if unicodedata.category(each) == "Zs" else each for each in plain if each not in _NOTHING)


def typography(pasted: str) -> str | None:
    """The first character that a word processor made of a quote; None where there is none."""
    quotes = "".join(_QUOTES.values()).replace("`", "").replace("\u00b4", "")
    return next((each for each in pasted if each in quotes), None)


def word(pasted: str) -> str:
    """One word that has no blanks in it: also where it was folded, quoted, or ends a sentence."""
    joined = _joined(pasted).translate(_TYPOGRAPHY)
    while (trimmed := joined.removesuffix(".").strip("<>\"'(),;")) != joined:
        joined = trimmed
    return joined


def _joined(pasted: str) -> str:
    """Without blanks, and without what a mail program puts before the lines of another's mail."""
    return "".join("".join(line.split()).lstrip(">|") for line in lines(pasted).split("\n"))


def token(pasted: str) -> str:
    """A token. Of those that a registry made, nothing but the letters; an operator may have chosen any other one."""
    plain = word(pasted)
    made = len(plain) in TOKEN_LENGTHS and plain.isalpha() and plain.islower()
    return plain if made else lines(pasted).strip()


def fingerprint(pasted: str) -> tuple[str, bytes]:
    """The algorithm's name and the digest, of ALG:HEX, of what `openssl x509 -fingerprint` prints, or of digits alone.

    Raises ValueError.
    """
    found = _FINGERPRINT.fullmatch(word(pasted).lower())
    if found is None:
        raise ValueError(pasted)
    digits = found[2].replace(":", "")
    name = found[1] or ALGORITHMS.get(len(digits))
    if name is None:
        raise ValueError(pasted)
    return name, bytes.fromhex(digits)


def invitation(pasted: str) -> tuple[str, str | None, str | None]:
    """The registry's URL, the fingerprint and the token of an invitation; None for what it does not have."""
    url, _, fragment = _joined(pasted).partition("#")
    said = expected = None
    for item in filter(None, fragment.split(",")):
        if item.lower().startswith("token="):
            said = token(item[len("token=") :])
        else:
            expected = item
    return word(url), expected, said


def pem(data: bytes) -> bytes:
    """PEM as every program reads it: each block with its own lines of 64 characters, and nothing between them.

    What has no such block, or one that is not base64, is returned as it is, for the reader to complain about.
    """
    try:
        plain = lines(text(data))
    except UnicodeDecodeError:
        return data
    blocks = []
    for label, body in _PEM.findall(plain):
        try:
            content = base64.b64decode("".join(body.split()), validate=True)
        except (binascii.Error, ValueError):
            return data
        encoded = base64.b64encode(content).decode("ascii")
        rows = (encoded[at : at + PEM_COLUMNS] for at in range(0, len(encoded), PEM_COLUMNS))
        blocks.append("\n".join((f"-----BEGIN {label}-----", *rows, f"-----END {label}-----\n")))
    return "".join(blocks).encode("ascii") or data
