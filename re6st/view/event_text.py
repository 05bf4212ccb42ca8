"""The events of a node as sentences, for re6st-status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from re6st.core.words import away, duration, plural
from re6st.view.screen import Line, Span, Style, line

Answer = Mapping[str, Any]
"""A result of the control socket, from JSON."""

_HAPPENED = {
    "tunnel-up": "our tunnel to {peers} is up",
    "tunnel-draining": "draining our tunnel to {peers}",
    "tunnel-kept": "our tunnel to {peers} is kept",
    "false-claim": "{peers} announced a subnet that is not its own: {reason}",
    "own-subnet-heard": "another machine announces our subnet: {reason}",
    "certificate-doubled": "two machines have the certificate of {peers}",
    "own-certificate-doubled": "another machine has our certificate, as {peers} saw",
    "link-avoided": "packets get lost on the link with {peers}: other routes are used",
    "link-trusted": "the link with {peers} is used again",
    "link-died": "the link with {peers} is dead: other ways are used",
    "link-revived": "the link with {peers} is alive again",
    "tunnel-closed": "closed our tunnel to {peers}: {reason}",
    "tunnel-lost": "lost our tunnel to {peers}",
    "tunnel-failed": "no tunnel to {peers}: it never came up",
    "client-up": "{peers} opened a tunnel to us",
    "client-down": "the tunnel from {peers} ended",
    "peers-lost": "lost {count}: {peers}",
    "peers-back": "{count} back: {peers}",
    "connected": "connected to the registry's node",
    "disconnected": "the registry's node cannot be reached",
    "babel-running": "babeld runs again",
    "babel-ended": "babeld ended",
}
_TROUBLE: Mapping[str, Style] = {
    **dict.fromkeys(("tunnel-lost", "tunnel-failed", "link-avoided", "link-died", "peers-lost"), "warning"),
    **dict.fromkeys(("disconnected", "babel-ended", "false-claim"), "bad"),
    **dict.fromkeys(("own-subnet-heard", "certificate-doubled", "own-certificate-doubled"), "bad"),
    **dict.fromkeys(("connected", "babel-running", "peers-back"), "good"),
}
_AFTER = {"peers-back": "healed in", "connected": "after", "babel-running": "after"}


def event_lines(events: Sequence[Answer], now: float) -> list[Line]:
    """The events, the newest last. An event that happens again and again is one line, with the time of the last one."""
    kept: list[tuple[Answer, int]] = []
    for event in events:
        times = 0
        if kept and _same(kept[-1][0], event):
            times = kept.pop()[1]
        kept.append((event, times + 1))
    ages = [away(event["time"], now) for event, _ in kept]
    width = max(map(len, ages), default=0)
    return [
        line(
            *("  ", Span(age.rjust(width), "dim"), "  ", Span(event_words(event), _TROUBLE.get(event["kind"], ""))),
            Span(f" ({times} times)" if times > 1 else "", "dim"),
        )
        for age, (event, times) in zip(ages, kept, strict=True)
    ]


def _same(one: Answer, other: Answer) -> bool:
    return all(one[key] == other[key] for key in ("kind", "peers", "count", "reason"))


def event_words(event: Answer) -> str:
    """An event as a sentence."""
    more = event["count"] - len(event["peers"])
    peers = ", ".join(event["peers"]) + (f" and {more} more" if more > 0 else "")
    text = _HAPPENED.get(event["kind"], f"{event['kind']} {{peers}}")
    if event["kind"] == "babel-ended" and event["reason"]:
        text = "babeld is started again: {reason}"
    if event["kind"] == "link-avoided" and event["reason"]:
        text = "packets get lost on the link with {peers}, as {reason}: other routes are used"
    words = text.format(peers=peers, count=plural(event["count"], "node"), reason=event["reason"])
    if event["seconds"] is None:
        return words
    lasted = _AFTER.get(event["kind"], "it was up" if "tunnel" in text else "after")
    return f"{words}, {lasted} {duration(event['seconds'])}"
