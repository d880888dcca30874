"""What each command does: reads files, calls the library, returns what is to be printed.

`output`       The shape of results; what is said meanwhile; how results are written.
`targets`      Where results may go, checked before anything is loaded.
`members`      NAME=FILE: files of predictions and whose they are.
`scoring`      predict, submit, evaluate.
`planning`     plan.
`blending`     blend, report.
`preparation`  train, import-checkpoint, models, validate.
`runs`         runs show.
"""

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
