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
