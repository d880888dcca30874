"""Where base models come from: a local folder, the bundle, the Hub. Safetensors only, and never code."""

from pathlib import Path

from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.files import read_mapping, suggest
from lmsys_ensemble.modeling.bundled import BUNDLED_MODELS, PREFIX, ensure_bundled
from lmsys_ensemble.modeling.tensorfiles import check_safetensors

HUB_NAMES = {
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3-8b-it": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama-3.1-8b-it": "meta-llama/Llama-3.1-8B-Instruct",
}
"""Short names of models on the Hub."""


def resolve_base(source: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a base model, fetching it first if need be.

    Parameters
    ----------
    source : str or Path
        A local folder, a bundled model (``bundled:smollm2-135m-instruct``) or a model on the Hub
        (``google/gemma-2-9b-it``, or one of the short names of `HUB_NAMES`).
    revision : str, optional
        Commit on the Hub. A model on the Hub must be pinned.

    Raises
    ------
    ConfigError
        If the name is none of these, or a model on the Hub is not pinned.
    ModelError
        If it cannot be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.startswith(PREFIX) or name in BUNDLED_MODELS:
        return ensure_bundled(name)
    name = HUB_NAMES.get(name, name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConfigError(
            f"{name!r} is no folder, no bundled model and no name on the Hub"
            f"{suggest(name, [*BUNDLED_MODELS, *HUB_NAMES])}"
        )
    if revision is None:
        raise ConfigError(
            f"{name} would come from the Hub unpinned: give revision= (a commit hash) so that the weights cannot "
            "change under you, or the path of a local folder"
        )
    return _fetch_from_hub(name, revision)


def _fetch_from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "tokenizer.model"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name} at revision {revision} is neither in the Hub's local cache nor can it be fetched: "
            f"{str(error).splitlines()[0]}. Give the path of a local folder where there is no network"
        ) from error


def check_base_folder(folder: Path) -> None:
    """Refuse a folder with remote code, with pickled weights or with damaged or lost files.

    Raises
    ------
    ModelError
        Says which, and how to put it right.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json; is it the folder of a model?")
    if "auto_map" in read_mapping(folder / "config.json"):
        raise ModelError(
            f"{folder}/config.json asks for code of its own (auto_map), which is never run. Where transformers knows "
            "the architecture itself, delete the entry auto_map"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [path.name for path in folder.glob("*.bin")] + [path.name for path in folder.glob("*.pt*")]
        found = f"; {', '.join(pickled)} are pickles, which can run code and are not read" if pickled else ""
        raise ModelError(
            f"{folder} holds no *.safetensors{found}. Load it where you trust it and save it again: save_pretrained of "
            "transformers 5 writes safetensors"
        )
    for path in weights:
        check_safetensors(path)
    for index in folder.glob("*.safetensors.index.json"):
        lost = sorted({shard for shard in read_mapping(index)["weight_map"].values() if not (folder / shard).is_file()})
        if lost:
            raise IntegrityError(f"{folder} lacks {', '.join(lost)}, which {index.name} lists; copy or fetch it again")
