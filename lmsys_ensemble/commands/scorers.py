"""The command ``scorers``."""

from dataclasses import asdict

from lmsys_ensemble._version import __version__
from lmsys_ensemble.commands.options import ScorersOptions
from lmsys_ensemble.commands.output import Result
from lmsys_ensemble.scorers.registry import list_scorers

OWN = f"lmsys-ensemble {__version__}"


def scorers(options: ScorersOptions) -> Result:
    """List the registered types of scorers, with one line on each."""
    entries = list_scorers()
    width = max((len(entry.name) for entry in entries), default=0)
    lines = []
    for entry in entries:
        origin = "" if entry.package == OWN else f" [{entry.package}]"
        lines.append(f"{entry.name.ljust(width)}  {entry.summary or entry.path}{origin}")
    return Result({"scorers": [asdict(entry) for entry in entries]}, "\n".join(lines))
