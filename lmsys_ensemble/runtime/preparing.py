"""The thread that prepares rows while its worker's device computes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

Work = Callable[[], Any]


class Preparer:
    """A thread that does queued work in order; a context manager.

    It is a daemon. Python waits for the threads of `concurrent.futures` before it ends, and a tokenizer that never
    returns must not keep a process alive that has its result.
    """

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Work, Future[Any]] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="prepares", daemon=True)

    def submit(self, work: Work) -> "Future[Any]":
        """Queue work, which is done after all that was queued before."""
        future: Future[Any] = Future()
        self._waiting.put((work, future))
        return future

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self.thread.join()

    def _run(self) -> None:
        while (task := self._waiting.get()) is not None:
            work, future = task
            try:
                future.set_result(work())
            except BaseException as error:  # whoever asks for the result gets it
                future.set_exception(error)
