"""The command line: arguments and exit codes, nothing else.

Exit codes: 0, all went well; 1, the work failed; 2, the arguments, a configuration or the data are wrong; 3, the result
is there, but time was up (``--time-budget``) and rows of it lack something; 130, Ctrl-C; 143, SIGTERM.
"""

import errno
import logging
import sys
from collections.abc import Sequence

from lmsys_ensemble.commands.table import COMMANDS, make_parser
from lmsys_ensemble.errors import ConfigError, DeviceError, EnsembleError, InputError
from lmsys_ensemble.flags import spelled_as_flags
from lmsys_ensemble.hosting.interrupt import TERMINATED_CODE, Terminated
from lmsys_ensemble.streams import patient_streams
from lmsys_ensemble.terminal import log_to_terminal, paragraph, plain_warnings, printable, printable_json, starting

EXIT_FAILED, EXIT_USAGE, EXIT_TIME_WAS_UP, EXIT_INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code; a reader that has gone away (``| head``) ends it quietly."""
    with patient_streams(), spelled_as_flags():
        try:
            return _run(arguments)
        except BrokenPipeError:
            return 0


def _run(words: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(sys.argv[1:] if words is None else words)
    try:
        command = COMMANDS[arguments.command]
        options = command.read(arguments)
        log_to_terminal(logging.INFO if options.verbose else logging.WARNING)
        with starting():
            run = command.load()
        with plain_warnings():
            result = run(options)
    except (KeyboardInterrupt, Terminated) as error:
        print(paragraph(error, "interrupted"), file=sys.stderr)
        return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else TERMINATED_CODE
    except EnsembleError as error:
        print(paragraph(error), file=sys.stderr)
        return EXIT_USAGE if isinstance(error, InputError | ConfigError | DeviceError) else EXIT_FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        print(paragraph(error), file=sys.stderr)
        return EXIT_USAGE if error.errno == errno.ENAMETOOLONG else EXIT_FAILED
    if options.json or result.text:
        print(printable_json(result.values) if options.json else printable(result.text))
    return EXIT_TIME_WAS_UP if result.time_was_up else 0
