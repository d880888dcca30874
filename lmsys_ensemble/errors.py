"""Every error that the library raises on purpose.

::

    EnsembleError
    ├── InputError (ValueError)          the battles, labels or probabilities that came in
    │   └── SubmissionError              a table that must not be submitted
    ├── ConfigError (ValueError)         a setting, a configuration file or a recipe
    │   ├── RegistryError                an unknown or duplicate scorer name
    │   └── CheckError                   what was found wrong before anything was loaded; a ModelError, too
    ├── ModelError                       a base model, an adapter or a head
    │   ├── IntegrityError               a damaged or exchanged file
    │   └── GoldenError                  loads, but does not give the numbers it gave when saved
    ├── DeviceError                      a device that is not there or cannot do what is asked
    ├── ContractError                    a scorer that does not keep the contract (see check_scorer)
    ├── JournalError                     a run directory: in use, damaged, or on a full disk
    │   └── RunFolderError               (a ConfigError, too) no run directory, or one of other settings
    ├── OutputError                      a result that could not be written where it should go; says where it is kept
    ├── MissingDependencyError (ImportError)
    └── ScoringError                     a scorer failed while it ran; names scorer, device and rows

A message says what was got, what was expected and how to put it right.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class EnsembleError(Exception):
    """Base class of all errors that the library raises on purpose."""


class InputError(EnsembleError, ValueError):
    """Battles, labels or probabilities that cannot be used as they are."""


class SubmissionError(InputError):
    """A submission that would be refused, or worse, accepted with misaligned rows."""


class ConfigError(EnsembleError, ValueError):
    """A setting, a configuration file or a recipe that is wrong or contradicts another."""


class RegistryError(ConfigError):
    """A scorer name that is unknown or registered twice."""


class ModelError(EnsembleError):
    """A base model, an adapter or a head that cannot be loaded as what it claims to be."""


class IntegrityError(ModelError):
    """A file that is damaged, cut short or not the one that was pinned."""


class GoldenError(ModelError):
    """A model that loads but does not reproduce the logits stored when it was saved."""


class CheckError(ConfigError, ModelError):
    """What was found wrong with settings, models and adapters before anything was loaded.

    Parameters
    ----------
    faults : sequence of str
        One sentence each.
    """

    def __init__(self, faults: Sequence[str]):
        listed = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(faults[0] if len(faults) == 1 else f"{len(faults)} things are wrong:{listed}")
        self.faults = tuple(faults)


@contextmanager
def collected(faults: list[str]) -> Iterator[None]:
    """Add to `faults` what a block raises on purpose, so that the next check can follow."""
    try:
        yield
    except CheckError as error:
        faults.extend(error.faults)
    except EnsembleError as error:
        faults.append(str(error))


class DeviceError(EnsembleError):
    """A device that does not exist here or cannot do what is asked of it."""


class ContractError(EnsembleError):
    """A scorer that does not keep the contract of `Scorer`."""


class JournalError(EnsembleError):
    """A run directory that is in use, damaged or cannot be written."""


class RunFolderError(JournalError, ConfigError):
    """A folder that is no run directory, or holds a run with other settings; other arguments are needed."""


class OutputError(EnsembleError):
    """A result that could not be written where it should go; the message says where it is kept."""


class MissingDependencyError(EnsembleError, ImportError):
    """An optional package that is needed for what was asked."""


class ScoringError(EnsembleError):
    """A scorer failed while it ran.

    Parameters
    ----------
    message : str
        What happened, in words for the user.
    scorer, device : str
        Which scorer failed and where it ran.
    row_ids : tuple
        Ids of the rows at fault, where they are known.
    """

    def __init__(self, message: str, *, scorer: str = "", device: str = "", row_ids: tuple[object, ...] = ()):
        super().__init__(message)
        self.scorer = scorer
        self.device = device
        self.row_ids = row_ids
