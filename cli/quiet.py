"""TensorFlow's C++ log, kept off the screen. Nothing here imports TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def import_quietly() -> None:
    """Imports TensorFlow and lists its devices without its log on stderr."""
    # Takes effect once TensorFlow is loaded; `without_cpp_log` removes what it logs before.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_cpp_log():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def without_cpp_log() -> Iterator[None]:
    """Removes TensorFlow's C++ log from stderr; the rest of stderr appears when the block ends."""
    # Without a GPU, errors in the log only say that there is none.
    levels = "IW" if Path("/dev/nvidiactl").exists() else "IWE"
    log_line = rf"(?m)^(WARNING: All log messages before absl|[{levels}]\d{{4}} [\d:.]+ ).*\n"
    has_failed = False
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            has_failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            written.seek(0)
            text = written.read()
            stderr.write(text if has_failed else re.sub(log_line.encode(), b"", text))
