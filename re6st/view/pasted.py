"""Reads text that a person pasted: from a mail, a chat, a wiki, a word processor or the output of openssl.

On its way, such text gets other blanks and line ends, a mark at its beginning, and typographic quotes and dashes. Its
meaning is clear all the same, so it is accepted. If it is unclear, the text stays as it is, and the reader reports it.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from urllib.parse import unquote

ALGORITHMS = {64: "sha256", 96: "sha384", 128: "sha512"}
"""The algorithm of a fingerprint that does not name one, by the number of hex digits. Nobody should trust a shorter
one.
"""
TOKEN_LENGTHS = (8, 18)
"""Numbers of letters in the tokens of registries: the older software's, and ours."""
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
    # The name of an algorithm has a letter that is not a hex digit.
    r"(?:(?=[\w-]*[g-z])([\w-]*?)(?:fingerprint)?[:=])?((?:[0-9a-f]{2}:?)+)"
)
_COMMAND = re.compile(r"^\W*(?:sudo\s+)?re6st-conf\s+(?:[-\u2010-\u2015]+join[\s=]+|join\s+)")
_URL = re.compile(r"https?://", re.I)
_MARK = "token="
_BETWEEN = r"[,;](?=token=|(?:[\w-]+:)?[0-9a-f]{2}[0-9a-f:]{30})"
"""What separates the parts of an invitation; a comma alone may also be in a URL."""
_PARTS, _ITEMS = re.compile(f"#|{_BETWEEN}", re.I), re.compile(f",|{_BETWEEN}", re.I)
_PEM = re.compile(
    rf"[-{_DASHES}]+\s*BEGIN ([A-Z0-9 ]+?)\s*[-{_DASHES}]+(.*?)[-{_DASHES}]+\s*END \1\s*[-{_DASHES}]+", re.S
)


def text(data: bytes) -> str:
    """The text in a file: UTF-8, or UTF-16 from some editors. Raises UnicodeDecodeError."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")


def lines(pasted: str) -> str:
    """The text with plain blanks and line ends, and without invisible characters. Tabs stay."""
    plain = _LINE_ENDS.sub("\n", pasted)
    if plain.isascii() and not any(each in plain for each in _NOTHING):
        return plain
    return "".join(" " if unicodedata.category(each) == "Zs" else each for each in plain if each not in _NOTHING)


def typography(pasted: str) -> str | None:
    """The first character that a word processor made from a quote; None if there is none."""
    quotes = "".join(_QUOTES.values()).replace("`", "").replace("\u00b4", "")
    return next((each for each in pasted if each in quotes), None)


def word(pasted: str) -> str:
    """One word without blanks: even if it was folded, quoted, or at the end of a sentence."""
    joined = _joined(pasted).translate(_TYPOGRAPHY)
    while (trimmed := joined.removesuffix(".").strip("<>\"'(),;")) != joined:
        joined = trimmed
    return joined


def _joined(pasted: str) -> str:
    """Without blanks, and without the marks that mail programs put before quoted lines."""
    return "".join("".join(line.split()).lstrip(">|") for line in lines(pasted).split("\n"))


def token(pasted: str) -> str:
    """A token. From one that a registry made, only the letters are taken; an operator may have chosen any other one."""
    plain = word(pasted)
    made = len(plain) in TOKEN_LENGTHS and plain.isalpha() and plain.islower()
    return plain if made else lines(pasted).strip()


def fingerprint(pasted: str) -> tuple[str, bytes]:
    """The algorithm's name and the digest, from ALG:HEX, from the output of `openssl x509 -fingerprint`, or from digits
    alone.

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
    """The registry's URL, the fingerprint and the token in an invitation; None for parts that it does not have.

    The parts may be in any order, and the command around them may be there too.
    """
    plain = _COMMAND.sub("", lines(pasted)).strip()
    if plain[:1] in ("'", '"') and plain[-1:] == plain[:1]:
        plain = plain[1:-1]
    joined = _separated(plain) or _joined(plain)
    found = _URL.search(joined)
    before, after = ("", joined) if found is None else (joined[: found.start()], joined[found.start() :])
    if "#" not in after and "%23" in after:  # some programs encode what is not a letter
        after = unquote(after)
    url, *rest = _PARTS.split(after, maxsplit=1)
    said = expected = None
    for item in (*_PARTS.split(before), *_ITEMS.split("".join(rest))):
        bare = item.translate(_TYPOGRAPHY).lstrip("<\"'(")
        if bare.lower().startswith(_MARK):
            said = token(item[item.lower().index(_MARK) + len(_MARK) :])
        elif bare:
            expected = item
    return word(url), expected, said


def _separated(plain: str) -> str | None:
    """The invitation in its usual form, if each word of it is whole; None: it may have been folded."""
    words = [word(each) for each in plain.split()]
    parts = [part for each in words for part in _PARTS.split(each) if part]
    kinds = [_kind(part) for part in parts]
    whole = len(words) > 1 and None not in kinds and len(set(kinds)) == len(kinds) and "url" in kinds
    url, *rest = sorted(parts, key=lambda part: _kind(part) != "url") if whole else [""]
    return f"{url}#{','.join(rest)}" if whole else None


def _kind(part: str) -> str | None:
    """What a part of an invitation is; None: it is not a whole one."""
    if _URL.match(part):
        return "url"
    if part.lower().startswith(_MARK):
        return "token" if part[len(_MARK) :] else None
    try:
        fingerprint(part)
    except ValueError:
        return None
    return "fingerprint"


def pem(data: bytes) -> bytes:
    """PEM as every program reads it: each block in lines of 64 characters, and nothing between the blocks.

    Text without such a block, or with one that is not base64, is returned unchanged, and the reader reports it.
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
