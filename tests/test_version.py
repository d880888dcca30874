"""The version is written once."""

from importlib.metadata import version

import pytest

import lmsys_ensemble
from lmsys_ensemble._version import __version__
from lmsys_ensemble.cli import main


def test_the_library_the_package_and_the_command_line_tell_the_same_version(capsys):
    assert lmsys_ensemble.__version__ == __version__ == version("lmsys-ensemble")
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"lmsys-ensemble {__version__}\n"
