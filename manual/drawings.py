"""Draws the pictures of docs/drawings. Run `python -m manual.drawings` after a change; a test compares.

A drawing is a list of shapes. Colours are classes, so that each picture is readable on a light and on a dark page.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / "docs" / "drawings"

STYLE = """\
  .ground { fill: #ffffff; } .box { fill: #eef3fa; stroke: #33547d; stroke-width: 1.5; }
  .other { fill: #fdf3e3; stroke: #9a6a1c; stroke-width: 1.5; }
  .both { fill: #eaf5ec; stroke: #3c6e47; stroke-width: 1.5; }
  .off { fill: none; stroke: #8a8a8a; stroke-dasharray: 5 4; stroke-width: 1.5; }
  text { font: 14px sans-serif; fill: #1c2733; } .small { font-size: 12px; fill: #4a5868; }
  .bold { font-weight: bold; }
  .line { stroke: #33547d; stroke-width: 2; fill: none; } .way { stroke: #c2410c; stroke-width: 4; fill: none; }
  .dash { stroke: #9a6a1c; stroke-width: 1.5; stroke-dasharray: 6 4; fill: none; }
  .head { fill: #33547d; } .way-head { fill: #c2410c; }
  .knock { stroke: #ffffff; stroke-width: 5; paint-order: stroke; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #1b2128; } .box { fill: #24344a; stroke: #8fb4e3; } .other { fill: #40331c; stroke: #e2b567; }
    .both { fill: #203527; stroke: #86c795; } .off { stroke: #999; } text { fill: #e8edf3; } .small { fill: #b3c0ce; }
    .line { stroke: #8fb4e3; } .way { stroke: #fb923c; } .dash { stroke: #e2b567; } .head { fill: #8fb4e3; }
    .way-head { fill: #fb923c; } .knock { stroke: #1b2128; }
  }"""
MARKER = (
    '<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="14" markerHeight="14"'
    ' markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path class="{kind}" d="M0 0L10 5L0 10z"/></marker>'
)
MARKERS = f"<defs>{MARKER.format(name='arrow', kind='head')}{MARKER.format(name='way-arrow', kind='way-head')}</defs>"


@dataclass
class Drawing:
    """One picture: shapes in the order in which they are painted."""

    title: str
    width: int
    height: int
    shapes: list[str] = field(default_factory=list)

    def box(self, x: int, y: int, width: int, height: int, name: str, note: str = "", kind: str = "box") -> None:
        """A box with a name and, below it, a smaller note."""
        self.shapes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')
        middle, line = x + width // 2, y + height // 2
        self.text(middle, line - 3 if note else line + 5, name, "bold" if note else "")
        if note:
            self.text(middle, line + 15, note, "small")

    def text(self, x: int, y: int, words: str, kind: str = "small", anchor: str = "middle") -> None:
        named = f' class="{kind}"' if kind else ""
        self.shapes.append(f'<text{named} x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, path: str, kind: str = "line", *, head: bool = False, tail: bool = False) -> None:
        """A path of SVG, with an arrow's head at its end, its beginning, or neither."""
        arrow = "way-arrow" if kind == "way" else "arrow"
        ends = (f' marker-end="url(#{arrow})"' if head else "") + (f' marker-start="url(#{arrow})"' if tail else "")
        self.shapes.append(f'<path class="{kind}" d="{path}"{ends}/>')

    def svg(self) -> str:
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        title = escape(self.title, quote=True)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">',
                f"<title>{title}</title>",
                f"<style>\n{STYLE}\n</style>",
                MARKERS,
                f'<rect class="ground" width="{self.width}" height="{self.height}" rx="8"/>',
                *self.shapes,
                "</svg>\n",
            ]
        )


def network() -> Drawing:
    drawing = Drawing("A registry, nodes and the tunnels between them", 760, 420)
    drawing.shapes.append('<rect class="off" x="24" y="16" width="196" height="200" rx="8"/>')
    drawing.text(122, 34, "the registry's machine")
    nodes = {"0/16": (122, 186), "1/16": (340, 130), "2/16": (530, 140), "3/16": (650, 240), "4/16": (490, 330)}
    nodes["5/16"] = (280, 320)
    for one, other in ("01", "12", "23", "34", "45", "50", "14", "04", "52"):
        (x, y), (to_x, to_y) = nodes[f"{one}/16"], nodes[f"{other}/16"]
        drawing.line(f"M{x} {y}L{to_x} {to_y}")
    drawing.line("M122 186L340 130L530 140", "way")
    for name, (x, y) in nodes.items():
        drawing.box(x - 34, y - 19, 68, 38, name)
    drawing.box(42, 46, 160, 52, "registry", "HTTP, database", "other")
    drawing.line("M122 98L122 164", "dash", head=True, tail=True)
    drawing.text(132, 136, "changes", anchor="start")
    drawing.box(580, 20, 150, 52, "newcomer", "has a token", "off")
    drawing.line("M580 46L206 62", "dash", head=True, tail=True)
    drawing.text(394, 42, "1. token for certificate and first peer", "small knock")
    drawing.line("M650 72L570 126", "dash", head=True)
    drawing.text(624, 108, "2. first tunnel", anchor="start")
    drawing.text(
        380, 384, "Blue lines are tunnels (OpenVPN). Babel chooses the routes: the one from 0/16 to 2/16 is orange."
    )
    drawing.text(380, 403, "The registry issues certificates. It forwards no packets.")
    return drawing


def node() -> Drawing:
    drawing = Drawing("What runs on a node", 760, 236)
    drawing.box(250, 20, 260, 64, "re6stnet", "decides, starts programs, watches them")
    drawing.box(30, 150, 210, 64, "OpenVPN", "clients and servers of tunnels")
    drawing.box(300, 150, 160, 64, "babeld", "chooses routes")
    drawing.box(530, 150, 200, 64, "kernel", "addresses, routes, nftables", "other")
    drawing.line("M300 84L150 150", head=True, tail=True)
    drawing.text(204, 114, "management socket", anchor="end")
    drawing.line("M380 84L380 150", head=True, tail=True)
    drawing.text(388, 122, "babeld's socket", anchor="start")
    drawing.line("M460 84L610 150", head=True, tail=True)
    drawing.text(556, 114, "netlink, nft", anchor="start")
    drawing.line("M460 182L530 182", head=True)
    drawing.text(495, 172, "routes")
    drawing.line("M240 182L300 182", head=True, tail=True)
    drawing.text(270, 172, "hellos")
    drawing.box(30, 20, 150, 48, "other nodes", "UDP port 326", "off")
    drawing.line("M180 44L250 44", head=True, tail=True)
    drawing.box(580, 20, 150, 48, "re6st-status", "control socket", "off")
    drawing.line("M580 44L510 44", head=True, tail=True)
    return drawing


def tunnel() -> Drawing:
    drawing = Drawing("The phases of a tunnel that this node opens", 760, 300)
    boxes = [("opening", "15 s for each address"), ("up", "carries packets"), ("draining", "routes move away")]
    boxes.append(("asked", "may I close it?"))
    for index, (name, note) in enumerate(boxes):
        drawing.box(20 + index * 190, 84, 150, 56, name, note)
    drawing.box(590, 220, 150, 48, "closed", kind="other")
    drawing.line("M170 112L210 112", head=True)
    drawing.line("M360 112L400 112", head=True)
    drawing.line("M550 112L590 112", head=True)
    drawing.line("M665 140L665 220", head=True)
    drawing.text(657, 184, "the peer agrees", anchor="end")
    drawing.line("M475 84C455 54 335 54 310 82", "dash", head=True)
    drawing.line("M665 84C640 8 300 8 265 82", "dash", head=True)
    drawing.text(392, 56, "a destination has no other route", "small knock")
    drawing.text(467, 24, "packets use it again", "small knock")
    drawing.line("M285 140C290 215 430 236 590 238", head=True)
    drawing.line("M95 140C105 270 380 268 590 254", head=True)
    drawing.text(400, 206, "the peer is gone, revoked or connected twice", "small knock")
    drawing.text(290, 284, "no address answers: tried again later, after longer and longer times", "small knock")
    return drawing


def draining() -> Drawing:
    drawing = Drawing("A tunnel is drained before it is closed", 760, 262)
    steps = [
        ("1. the tunnel is in use", "each link costs 96"),
        ("2. its hellos are dropped", "the cost doubles each time"),
    ]
    steps.append(("3. no route uses it", "now it is closed"))
    for index, (name, note) in enumerate(steps):
        x = 45 + index * 255
        drawing.text(x + 80, 28, name, "bold")
        drawing.text(x + 80, 46, note)
        drawing.line(f"M{x} 110L{x + 80} 190L{x + 160} 110")
        if index < 2:
            drawing.line(f"M{x} 110L{x + 160} 110", "line" if not index else "dash")
        way = f"M{x} 110L{x + 160} 110" if not index else f"M{x} 110L{x + 80} 190L{x + 160} 110"
        drawing.line(way, "way")
        if index == 1:
            drawing.text(x + 80, 86, "still forwards packets")
        for name_of, at_x, at_y in (("A", x, 110), ("B", x + 160, 110), ("C", x + 80, 190)):
            drawing.box(at_x - 18, at_y - 16, 36, 32, name_of)
    drawing.text(380, 242, "Orange: the route of packets from A to B. There is one at every moment.")
    return drawing


def takeover() -> Drawing:
    drawing = Drawing("A daemon takes over what the one before left running", 760, 236)
    for x, when, name, kind in (
        (30, "before", "re6stnet 1.0", "box"),
        (285, "between", "no daemon", "off"),
        (540, "after", "re6stnet 1.1", "box"),
    ):
        drawing.text(x + 95, 28, when, "bold")
        drawing.box(x, 44, 190, 44, name, kind=kind)
        if kind == "box":
            drawing.line(f"M{x + 95} 88L{x + 95} 130", head=True, tail=True)
    drawing.box(30, 130, 700, 44, "OpenVPN processes, babeld, routes in the kernel: they stay the same", kind="other")
    drawing.text(
        380,
        200,
        "Their sockets, and a record of each process, stay in the run directory; the next daemon connects to them.",
    )
    drawing.text(380, 219, "An upgrade, SIGHUP, systemctl restart and a crash are all alike.")
    return drawing


def uplinks() -> Drawing:
    drawing = Drawing("A node with two lines to the Internet: each tunnel goes over its own", 760, 300)
    drawing.box(20, 96, 170, 92, "node", "tunnels have marks", "box")
    lines = (("fibre", "0x10", "table 14601", 30), ("dsl", "0x20", "table 14602", 190))
    for name, mark, table, y in lines:
        drawing.box(310, y, 150, 56, f"router {name}", table, "other")
        drawing.text(250, y + (12 if y < 100 else 56), f"mark {mark}", "small knock")
    for peer, y in (("4/16", 14), ("9/16", 66), ("7/16", 166), ("5/16", 232)):
        drawing.box(650, y, 90, 40, peer, kind="both")
    for y, from_y, to_y in ((50, 118, 34), (66, 130, 86), (210, 156, 186), (226, 168, 252)):
        drawing.line(f"M190 {from_y}L310 {y}", "line")
        drawing.line(f"M460 {y}L650 {to_y}", "line")
    drawing.line("M190 184L310 240", "way", tail=True)
    drawing.line("M460 240L650 264", "way", head=True)
    drawing.text(555, 150, "the Internet", "bold")
    drawing.text(380, 288, "Orange: whoever comes in by a line gets the answers by the same one.")
    return drawing


CORE = "wire/, mesh/, routing/, transport/, registry/, machine/, limits/, telemetry/"
ROOMS = {
    "cli": ("cli/", "the programs: re6stnet, re6st-registry, re6st-conf, re6st-status", "both", 20, 720),
    "web": ("web/", "the operator's page", "other", 420, 320),
    "node": ("node.py", "starts the rooms of a node, and ends them", "box", 20, 250),
    "sim": ("sim/", "many nodes at once", "box", 280, 130),
    "api": ("api/", "HTTP, operator's socket, metrics", "other", 420, 320),
    "noded": ("noded/", "the rooms of a node", "box", 20, 220),
    "migration": ("migration/", "older software", "both", 250, 160),
    "registry": ("registry.py", "the registry: its parts, and its calls", "other", 420, 320),
    "babel": ("babel.py", "one babeld", "box", 20, 190),
    "tunnel": ("tunnel.py", "what a tunnel is", "box", 150, 120),
    "registryd": ("registryd/", "the rooms of the registry, and its database", "other", 420, 320),
    "babeld": ("babeld/", "its sockets", "box", 20, 120),
    "transport": ("transport/", "OpenVPN", "box", 220, 190),
    "client": ("client/", "asks the registry", "box", 280, 130),
    "cert": ("cert.py", "certificates, and who trusts them", "both", 20, 355),
    "service": ("service/", "logs, tasks, sockets, run directory", "both", 385, 355),
    "linux": ("linux/", "netlink, nftables, files, processes", "both", 20, 720),
    "keys": ("keys/", "RSA, X25519, sealing", "both", 20, 355),
    "view": ("view/", "text for people", "both", 385, 355),
    "core": ("core/", "the logic, without IO: " + CORE, "both", 20, 720),
}
"""Each room of the package: its name, what it does, whose it is, where its box begins and how wide that is."""
TWO_FLOORS = {"registryd"}
"""Rooms that are drawn over the floor below too, where their half of it is empty."""


def layers() -> list[list[str]]:
    """The floors of the package, the highest first, as import-linter holds them (pyproject.toml)."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (found,) = (contract for contract in contracts if contract.get("containers") == ["re6st"])
    return [re.split(r"\s*[|:]\s*", each) for each in found["layers"]]


def house() -> Drawing:
    floors = layers()
    drawing = Drawing("The rooms of the package, each above those that it may import", 760, len(floors) * 60 + 66)
    for number, floor in enumerate(floors):
        for room in floor:
            name, note, kind, x, width = ROOMS[room]
            drawing.box(x, 20 + number * 60, width, 110 if room in TWO_FLOORS else 50, name, note, kind)
    foot = len(floors) * 60 + 32
    for x, kind, words in ((20, "box", "of a node"), (150, "other", "of the registry"), (310, "both", "of both")):
        drawing.shapes.append(f'<rect class="{kind}" x="{x}" y="{foot}" width="18" height="18" rx="4"/>')
        drawing.text(x + 26, foot + 14, words, anchor="start")
    drawing.text(740, foot + 14, "A room imports only rooms that are below it.", anchor="end")
    return drawing


DRAWINGS = {each.__name__: each for each in (network, node, tunnel, draining, takeover, uplinks, house)}


def main() -> None:
    for name, draw in DRAWINGS.items():
        (DIRECTORY / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main()
