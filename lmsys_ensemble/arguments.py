"""A parser of command lines that names what was mistyped."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

_OTHER_NAMES = {"--test": "--input", "--input": "--test"}
"""Options of one command that other commands have under another name."""

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")


class CommandParser(argparse.ArgumentParser):
    """Names unknown options with the nearest known one before it asks for those that are missing.

    By itself, argparse answers ``--inptu x`` with "the following arguments are required: --input".
    """

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments, after a look for options that this parser does not know."""
        if args is not None:
            unknown = self._first_unknown(args)
            if unknown is not None:
                self.error(f"there is no option {unknown}{self._near(unknown, self._option_string_actions)}")
        return super().parse_known_args(args, namespace)

    def _first_unknown(self, arguments: Sequence[str]) -> str | None:
        takes_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        for argument in arguments:
            if argument == "--" or (takes_commands and not argument.startswith("-")):
                return None  # the rest is a command's, whose parser looks at it
            name = argument.split("=", 1)[0]
            if not name.startswith("-") or name == "-" or " " in name or _NEGATIVE_NUMBER.match(name):
                continue
            beginnings = [option for option in self._option_string_actions if option.startswith(name)]
            glued = not name.startswith("--") and name[:2] in self._option_string_actions
            if not beginnings and not glued:
                return name
        return None

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse an empty argument: a shell's variable that is not set must not mean the default or this folder."""
        own = arg_strings[:1] if isinstance(action, argparse._SubParsersAction) else arg_strings
        if "" in own:
            raise argparse.ArgumentError(action, "it is empty; was a variable of the shell not set?")
        if any("\0" in argument for argument in own):
            raise argparse.ArgumentError(action, "it holds a zero byte, which no name of a file can")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, argparse._SubParsersAction) else "value"
            choices = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action,
                f"there is no {what} {value!r}{self._near(str(value), choices)}; choose from {', '.join(choices)}",
            )

    @staticmethod
    def _near(name: str, known: Any) -> str:
        if _OTHER_NAMES.get(name) in known:
            return f" (did you mean {_OTHER_NAMES[name]!r}?)"
        from lmsys_ensemble.settings import suggest  # takes a while to import, and most command lines are right

        found = suggest(name, known)
        return found if "did you mean" in found else ""
