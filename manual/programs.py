"""What the manual tells of each program beside its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from re6st.cli.conf import commands as conf_commands
from re6st.cli.conf import options as conf_options
from re6st.cli.node import options as node_options
from re6st.cli.registry import commands as registry_admin
from re6st.cli.registry import config, init
from re6st.cli.status import main as status
from re6st.service import geoip

OPTION_FILE = (
    "An argument @FILE stands for the options in a file: one on each line, without its dashes, its values split as a "
    "shell splits words. Empty lines and those that begin with # are skipped; a line @FILE includes another file."
)
SEE_ALSO = ("re6stnet(8)", "re6st-conf(8)", "re6st-registry(8)", "re6st-status(1)", "babeld(8)", "openvpn(8)")

Table = Sequence[tuple[str, str]]
"""Names, and what they mean."""


@dataclass(frozen=True)
class Program:
    """A program, as its manual page tells it."""

    name: str
    section: int
    summary: str
    parser: argparse.ArgumentParser
    description: Sequence[str]
    """Paragraphs."""
    words: Mapping[str, argparse.ArgumentParser] = field(default_factory=dict)
    option_files: bool = False
    signals: Table = ()
    files: Table = ()
    environment: Table = ()
    statuses: Table = ()
    examples: Table = ()
    """Commands, and what they do."""


def words_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The words that a parser has parsers for."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def programs() -> list[Program]:
    """All of ours."""
    return [_node(), _conf(), _registry(), _status()]


def _node() -> Program:
    return Program(
        name="re6stnet",
        section=8,
        summary="node of a re6st network",
        parser=node_options.parser(),
        description=(
            "re6stnet keeps this machine in a re6st network: it gives it a stable IPv6 subnet, opens OpenVPN tunnels "
            "to peers picked at random, runs babeld over them, and heals what breaks. It needs the certificate that "
            "re6st-conf(8) fetched, and mostly runs as the service re6stnet.",
        ),
        option_files=True,
        signals=(
            ("SIGTERM, SIGINT", "leave the network, and end"),
            ("SIGHUP", "start again in place, as after an update of the program; tunnels stay"),
            ("SIGUSR1", "open the log files anew"),
        ),
        files=(
            ("/etc/re6stnet/re6stnet.conf", "options of the service"),
            ("/etc/re6stnet/ca.crt, cert.crt, cert.key", "certificates and key; with the key one loses the subnet"),
            ("/var/lib/re6stnet/", "what is remembered of peers and parameters; can be lost"),
            ("/var/log/re6stnet/", "logs of babeld and, with --ovpnlog, of OpenVPN; those of the node without journal"),
            ("/run/re6stnet/control.sock", "what re6st-status(1) asks; for root and the group re6stnet-look"),
            ("/etc/default/re6stnet", "environment of the service"),
        ),
        environment=(
            ("GEOIP2_MMDB", f"database of countries (MaxMind DB format); else {geoip.PLACE}, if it is there"),
        ),
        statuses=(
            ("0", "ended as told to"),
            ("1", "failed; starting again may help"),
            ("2", "wrong options"),
            ("76", "the program is too old for this network"),
            ("77", "a permission is missing"),
            ("78", "the certificate, the key, or another program that it needs is missing or wrong"),
        ),
        examples=(
            ("re6stnet @/etc/re6stnet/re6stnet.conf", "run in the foreground"),
            ("systemctl enable --now re6stnet", "run as a service, now and after each start of the machine"),
        ),
    )


def _conf() -> Program:
    return Program(
        name="re6st-conf",
        section=8,
        summary="enrol this machine in a re6st network",
        parser=conf_options.make_parser(),
        description=(
            "re6st-conf fetches the certificate of a network's authority, makes a private key that never leaves the "
            "machine, gets a certificate from the registry, and writes a sample configuration for re6stnet(8). "
            "Nothing is written before the authority is checked, and each file is written whole or not at all.",
            "Run again, it uses the key that is there, and gets another subnet.",
            "With a word, it looks at the files of a machine that has enrolled, or gets it another certificate or key.",
        ),
        words={
            "join": conf_options.make_join_parser(),
            **{name: conf_commands.make_parser_of(name) for name in conf_commands.COMMANDS},
        },
        files=(
            ("ca.crt, cert.crt, cert.key, re6stnet.conf", "in the directory it works in, /etc/re6stnet as a rule"),
            ("cert.key.next, cert.crt.next", "of a change of key that was not finished: rekey does"),
        ),
        statuses=(
            ("0", "done; with --is-needed: the network is out of reach"),
            ("1", "failed, or something is wrong (show); with --is-needed: the machine is inside"),
            ("2", "wrong options"),
            ("3", "the registry is out of reach"),
            ("5", "the registry refuses"),
        ),
        examples=(
            (
                "re6st-conf join 'https://re6st.example.com/#sha256:3f9a...,token=qwertzui'",
                "with the line that the operator of the network sent",
            ),
            ("re6st-conf show", "look at certificates and key, and what is wrong with them"),
            ("re6st-conf rekey", "have another key for the same subnet, and the old one refused"),
        ),
    )


def _registry() -> Program:
    return Program(
        name="re6st-registry",
        section=8,
        summary="registry of a re6st network, and its administration",
        parser=config.make_parser(),
        description=(
            "re6st-registry serves a registry: it gives each node a certificate, which holds its subnet, and points it "
            "to a first peer. With a word it makes or administers a network instead; a word speaks to the registry "
            "that runs on the database, or works on the file where none does.",
        ),
        words={
            "init": init.make_parser(),
            **{name: registry_admin.make_parser_of(name) for name in registry_admin.COMMANDS},
        },
        option_files=True,
        signals=(
            ("SIGTERM, SIGINT", "end"),
            ("SIGHUP", "read the options anew, as far as that goes without a restart"),
            ("SIGUSR1", "open the log file anew"),
        ),
        files=(
            ("/etc/re6stnet/re6st-registry.conf", "options of the service, and of the words"),
            ("/etc/re6stnet/ca.key", "key of the authority: whoever has it owns the network"),
            (f"{config.DATABASE}", "certificates and tokens; re6st-registry backup copies it"),
            ("/etc/default/re6st-registry", "environment of the service"),
        ),
        environment=(
            ("GEOIP2_MMDB", f"database of countries (MaxMind DB format); else {geoip.PLACE}, if it is there"),
        ),
        statuses=(
            ("0", "done"),
            ("1", "failed, or the configuration is wrong"),
            ("2", "wrong options"),
            ("3", "no such node or token"),
            ("4", "in conflict with what is there"),
            ("78", "with --check-config: something is wrong"),
        ),
        examples=(
            ("re6st-registry init --network 2001:db8:42::/48", "make the files of a new network"),
            ("systemctl enable --now re6st-registry", "serve it"),
            ("re6st-registry invite alice@example.org --expires 7d", "let a machine in"),
        ),
    )


def _status() -> Program:
    parser = status.parser()
    return Program(
        name="re6st-status",
        section=1,
        summary="what a re6st node does, and how well",
        parser=parser,
        description=(
            "re6st-status asks the node of this machine what it does: who it is, whether it is well, its tunnels and "
            "neighbours. With a word it tells one thing of it, or tries something out.",
        ),
        words=words_of(parser),
        files=(("/run/re6stnet/control.sock", "the node's socket; for root and the group re6stnet-look"),),
        statuses=(
            ("0", "healthy, or done"),
            ("1", "something is wrong, or it failed"),
            ("2", "wrong options"),
            ("3", "the node does not run"),
            ("4", "no permission"),
            ("5", "with wait: the time is over"),
            ("0, 1, 2, 3", "with check: ok, warning, critical, unknown"),
        ),
        examples=(
            ("re6st-status --watch", "the whole picture, live"),
            ("re6st-status why 4/16", "by whom a node is reached, and since when"),
        ),
    )
