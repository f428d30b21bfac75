"""What commands share: a parser whose complaints are ours, checked flags, tables, and output that may be cut off."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from outdo.errors import UserError, nearest


class AtLeastTwo(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if len(values) < 2:
            parser.error(f"only one contestant, '{values[0]}': name two or more")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """argparse, whose complaints are UserErrors and name the nearest flag."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, rest = self.parse_known_args(args, namespace)
        for unknown in rest:
            if unknown.startswith("-"):
                name = unknown.partition("=")[0]
                raise UserError(f"unknown flag '{name}'", fix=nearest(name, self._option_string_actions))
        if rest:
            raise UserError(f"one argument too many, '{rest[0]}'", fix=f"see `{self.prog} --help`")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UserError(f"unknown {action.dest} '{value}'", fix=nearest(value, action.choices))

    def error(self, message: str) -> NoReturn:
        raise UserError(message, fix=f"see `{self.prog} --help`")

    def print_help(self, file: Any = None) -> None:
        show(self.format_help().rstrip())


def positive(said: str) -> float:
    value = float(said)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {said}")
    return value


def fraction(said: str) -> float:
    value = float(said)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {said}")
    return value


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def show(text: str) -> None:
    """To stdout. A reader that has seen enough, as `head` has, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """To stderr, if anyone still listens there."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
