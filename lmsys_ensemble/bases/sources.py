"""Where base models come from: a local folder, the bundle, the Hub."""

import re
from pathlib import Path

from lmsys_ensemble.bases.bundled import bundled_folder, ensure_bundled, is_ready
from lmsys_ensemble.bases.catalogue import BUNDLED_MODELS, get_bundled, is_bundled
from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.settings import suggest

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
    folder = locate_base(source, revision)
    if folder is not None:
        return folder
    name = str(source)
    if is_bundled(name):
        return ensure_bundled(name)
    return _fetch_from_hub(HUB_NAMES.get(name, name), str(revision))


def locate_base(source: str | Path, revision: str | None = None) -> Path | None:
    """Return the local folder of a base model; None where the name is right but nothing has been fetched yet.

    Parameters and errors as for `resolve_base`, without the network.
    """
    name = str(source)
    if name and Path(source).is_dir():
        return Path(source)
    if name and Path(source).exists():
        raise ConfigError(f"{name} is a file; a base model is a folder with config.json and *.safetensors")
    if is_bundled(name):
        model = get_bundled(name)
        return bundled_folder(model) if is_ready(model) else None
    hub_name = HUB_NAMES.get(name, name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", hub_name):
        looked = f" (looked from {Path.cwd()})" if not Path(name).is_absolute() else ""
        raise ConfigError(
            f"no folder here: {name!r}{looked}; and it is no bundled model and no name on the Hub"
            f"{suggest(name, [*BUNDLED_MODELS, *HUB_NAMES])}"
        )
    if revision is None:
        raise ConfigError(
            f"no folder here: {name!r} (looked from {Path.cwd()}). If a model on the Hub is meant, {hub_name} would "
            "come from there unpinned: state its revision (revision= in Python, revision: in a file), the 40-digit "
            "commit that its page on the Hub shows under 'Files and versions', so that the weights cannot change under "
            "you. Models whose licence must be accepted there also need a token (hf auth login)"
        )
    return _cached_from_hub(hub_name, revision)


_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]


def _cached_from_hub(name: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=True))
    except HFValidationError as error:
        raise ConfigError(f"no folder here: {name!r}; and it is no name on the Hub: {error}") from error
    except (LocalEntryNotFoundError, OSError):
        return None


def _fetch_from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ModelError(
            f"there is no folder {name} here, and {name} at revision {revision} is neither in the Hub's local cache "
            f"nor can it be fetched: {str(error).splitlines()[0]}. Give the path of a local folder where there is no "
            "network"
        ) from error
