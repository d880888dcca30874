"""What can be found wrong before anything is loaded, all of it in one list."""

from collections.abc import Sequence

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import CheckError, ConfigError, EnsembleError, collected
from lmsys_ensemble.flags import spell
from lmsys_ensemble.hosting.devices import assign_devices
from lmsys_ensemble.runtime.combining import check_membership, check_ready
from lmsys_ensemble.schema import Task
from lmsys_ensemble.scorers.base import Scorer
from lmsys_ensemble.terminal import has_control_characters, printable


def check_ensemble(
    scorers: Sequence[Scorer],
    task: Task,
    blender: Blender | None = None,
    battles: Battles | None = None,
    *,
    devices: Sequence[str] | None = None,
    here: bool = True,
) -> None:
    """Check scorers against each other and the task, each by itself, and whether the blender can blend them.

    Parameters
    ----------
    scorers : sequence of Scorer
        A scorer that is loaded is not checked again.
    task : Task
        Classes that all must share.
    blender : Blender, optional
        Checked where one is given; leave it out where it is yet to be fitted.
    battles : Battles, optional
        What is to be scored, where that is known.
    devices : sequence of str, optional
        Devices that may be used, by default all.
    here : bool
        Whether the ensemble is to run on this machine, which must then have the devices.

    Raises
    ------
    ConfigError, DeviceError
        If one thing is wrong, its own error. If several are, a `CheckError` that lists them.
    """
    alone: list[EnsembleError] = []
    faults: list[str] = []
    try:
        check_names(scorers)
        if blender is not None:
            check_membership(blender, scorers)
            check_ready(blender, len(scorers), task.n_classes)
    except EnsembleError as error:
        alone.append(error)
    if here:
        try:
            assign_devices(scorers, devices)
        except EnsembleError as error:
            alone.append(error)
    for scorer in scorers:
        own: list[str] = []
        with collected(own):
            _check_task(scorer, task)
        with collected(own):
            scorer.check(battles)
        who = f"scorer {scorer.name!r}"
        faults += [fault if who in fault else f"{who}: {fault}" for fault in dict.fromkeys(own)]
    if len(alone) == 1 and not faults:
        raise alone[0]
    if alone or faults:
        raise CheckError([*map(str, alone), *faults])


def check_names(scorers: Sequence[Scorer]) -> None:
    """Raise `ConfigError` if there is no scorer, two have one name, or a name holds control characters."""
    names = [scorer.name for scorer in scorers]
    if not names:
        raise ConfigError("an ensemble needs at least one scorer")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"scorers need different names; {', '.join(twice)} occurs more than once. Pass name=")
    unprintable = [printable(repr(name)) for name in names if has_control_characters(name)]
    if unprintable:
        raise ConfigError(
            f"names of scorers hold characters that cannot be shown or stored: {', '.join(unprintable)}. Pass name="
        )


def check_swappable(scorers: Sequence[Scorer]) -> None:
    """Raise `ConfigError` if a scorer reads no texts, so that it would not see that responses are swapped."""
    blind = [scorer.name for scorer in scorers if not scorer.reads_texts]
    if blind:
        raise ConfigError(
            f"{spell('swap=')} needs scorers that read the texts; {', '.join(blind)} would give the same probabilities "
            "for swapped responses"
        )


def _check_task(scorer: Scorer, task: Task) -> None:
    if scorer.task != task:
        raise ConfigError(f"predicts {list(scorer.task.classes)}, the ensemble {list(task.classes)}")
