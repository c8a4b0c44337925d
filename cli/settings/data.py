"""DataSettings: the data, and how it becomes batches."""

from __future__ import annotations

import dataclasses

from gradloop.engine.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data, and how it becomes batches."""

    dataset: str = option(
        "mnist", "what",
        "name of the dataset; or a .npz, .csv, .tfrecord or .parquet file, or a folder of such "
        "files or of images; or pkg.module:load, a function of yours", on_resume="refused",
    )  # fmt: skip
    target: str | None = option(
        None, "data", "column of a table that is predicted", on_resume="refused"
    )
    target_type: str | None = option(
        None, "data", "what targets are; none: strings and integers are classes",
        choices=("classes", "numbers"), on_resume="refused",
    )  # fmt: skip
    features: list[str] | None = option(  # noqa: RUF009 - no list is shared
        None, "data", "columns of a table that are inputs, such as age,height", on_resume="refused",
        default_text="all but the target",
    )  # fmt: skip
    image_size: int | list[int] | None = option(  # noqa: RUF009
        None, "data", "resize images to this height and width, such as 64,48, or 64 for both",
        default_text="as they are, all alike", on_resume="refused", minimum=1,
    )  # fmt: skip
    color_mode: str | None = option(
        None, "data", "channels of images: one, three, or four", on_resume="refused",
        choices=("grayscale", "rgb", "rgba"), default_text="grayscale if all images are, or rgb",
    )  # fmt: skip
    in_memory: bool | None = option(
        None, "data",
        "whether the examples of files lie in memory, or are read while the model trains; the bits "
        "are the same", default_text="up to an eighth of the machine's memory",
    )  # fmt: skip
    prefetch: int = option(4, "data", "batches that a streamed input prepares ahead", minimum=1)
    rescale: bool | None = option(
        None, "data", "divide bytes (uint8) by 255; auto: those of images, and not token ids",
        none="auto", on_resume="refused",
    )  # fmt: skip
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
        "train on N batches alone, spread over the training set, in one order, and validate on "
        "them: a model that cannot learn these has a fault",
        minimum=1, modes=("train",), on_resume="refused",
    )  # fmt: skip
