"""What each command of the command line does: reads files, calls the library, returns what is to be printed."""

from lmsys_ensemble.commands.blending import blend, report
from lmsys_ensemble.commands.output import Result
from lmsys_ensemble.commands.planning import plan
from lmsys_ensemble.commands.preparation import import_checkpoint, models, train, validate
from lmsys_ensemble.commands.runs import runs
from lmsys_ensemble.commands.scoring import evaluate, predict, submit

__all__ = [
    "Result",
    "blend",
    "evaluate",
    "import_checkpoint",
    "models",
    "plan",
    "predict",
    "report",
    "runs",
    "submit",
    "train",
    "validate",
]
