"""Files of predictions and the members that they belong to, as the command line gives them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.members import check_names, explain_mismatch, listed
from lmsys_ensemble.data.predictions import name_files
from lmsys_ensemble.errors import ConfigError, InputError


@dataclass(frozen=True)
class MemberFiles:
    """Files of predictions, one per member.

    Attributes
    ----------
    names, paths : tuple of str
        What every member is called, and where its predictions are.
    named : tuple of bool
        Whether the name was given; otherwise it is the file's own.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    named: tuple[bool, ...]


def parse_member_files(arguments: Sequence[str], option: str = "--probabilities") -> MemberFiles:
    """Read ``name=path`` or a plain path, which is called as the file.

    An argument is a plain path if there is a file of that whole name, so that ``lr=0.1.csv`` can be used as it is.

    Parameters
    ----------
    arguments : sequence of str
        What was given.
    option : str
        Where, for errors.

    Raises
    ------
    InputError
        If a name is empty or occurs twice.

    Examples
    --------
    >>> parse_member_files(["gemma=run1/oof.csv", "llama=run2/oof.csv"]).names
    ('gemma', 'llama')
    """
    parts = [_split(argument) for argument in arguments]
    for argument, (name, path) in zip(arguments, parts, strict=True):
        if name is not None and not (name.strip() and path):
            raise InputError(f"{option}: {argument!r} must be name=file or a file")
    plain = iter(name_files([path for name, path in parts if name is None]))
    names = tuple(next(plain) if name is None else name for name, _ in parts)
    try:
        check_names(names)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error
    return MemberFiles(names, tuple(path for _, path in parts), tuple(name is not None for name, _ in parts))


def _split(argument: str) -> tuple[str | None, str]:
    name, separator, path = argument.partition("=")
    return (None, argument) if not separator or Path(argument).exists() else (name, path)


def match_blender(blender: Blender, files: MemberFiles) -> Blender:
    """Return the blender with its weights in the order of the files.

    Raises
    ------
    ConfigError
        If it was fitted on members of other names; says how to give files the names of fit.
    """
    known = getattr(blender, "member_names_", None)
    if known is None:
        return blender
    if (mismatch := explain_mismatch(known, files.names)) is not None:
        as_many = len(files.paths) == len(known)
        paths = files.paths if as_many else ["FILE"] * len(known)
        pairs = " ".join(shlex.quote(f"{name}={path}") for name, path in zip(known, paths, strict=True))
        order = " if they come in the order of fitting" if as_many else ""
        raise ConfigError(f"{mismatch}. Say which file is whose, --probabilities {pairs}{order}")
    return blender.in_order_of(files.names)


def match_swapped(swapped: MemberFiles, members: MemberFiles) -> dict[str, str]:
    """Return the path of every member's predictions for swapped responses: by name where names are given.

    Raises
    ------
    InputError
        If only some have names, names are not those of the members, or their number is another.
    """
    if len(swapped.paths) != len(members.paths):
        raise InputError(
            f"--swapped has {len(swapped.paths)} files, --probabilities {len(members.paths)}; "
            "give one for each member, as name=file or in the same order"
        )
    if any(swapped.named) and not all(swapped.named):
        raise InputError("--swapped: give all files as name=file, or none; those without a name go by their order")
    if not any(swapped.named):
        return dict(zip(members.names, swapped.paths, strict=True))
    if set(swapped.names) != set(members.names):
        raise InputError(f"--swapped is of {listed(swapped.names)}, --probabilities of {listed(members.names)}")
    by_name = dict(zip(swapped.names, swapped.paths, strict=True))
    return {name: by_name[name] for name in members.names}
