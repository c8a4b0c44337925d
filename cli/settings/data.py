"""DataSettings: the data, and how it becomes batches."""

from __future__ import annotations

import dataclasses

from gradloop.engine.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data, and how it becomes batches."""

    dataset: str = option("mnist", "what", "name of the dataset", on_resume="refused")
    prefetch: int = option(4, "data", "batches that a streamed input prepares ahead", minimum=1)
    rescale: bool = option(
        True, "data", "scale pixels to [0, 1]; --no_rescale: keep 0 to 255", on_resume="refused"
    )
    data_dir: str | None = option(
        None, "data", "folder of the dataset's files", default_text="the user's cache"
    )
    validation_split: float | None = option(
        None, "data",
        "part of the training examples that validates, such as 0.1; the test set is used once, at "
        "the end; none: the test set validates", above=0, on_resume="refused",
    )  # fmt: skip
    overfit_batches: int | None = option(
        None, "data",
        "train on the first N batches alone, in one order, and validate on them: a model that "
        "cannot learn these has a fault", minimum=1, modes=("train",), on_resume="refused",
    )  # fmt: skip
