"""FileOptions: how files of one's own are read."""

from __future__ import annotations

import dataclasses

from gradloop.machine import memory_bytes

from .errors import FileError

# Word to number of channels.
COLOR_MODES = {"grayscale": 1, "rgb": 3, "rgba": 4}
# A share of the machine's memory that leaves room for TensorFlow, a model and what else runs.
_MEMORY_SHARE = 1 / 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How files of one's own are read.

    Attributes:
      target: Column of a table that is predicted.
      target_type: Whether targets are classes or numbers; None: strings and integers are classes.
      features: Columns of a table that are inputs; None: all but the target.
      image_size: Height and width to which images are resized; None: as they are, all alike.
      color_mode: One of `COLOR_MODES`, as in Keras; None: "grayscale" if all images are, or "rgb".
      in_memory: Whether examples lie in memory; None: if they fit well.
    """

    target: str | None = None
    target_type: str | None = None
    features: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    color_mode: str | None = None
    in_memory: bool | None = None

    def refuse_others(self, used: tuple[str, ...], what: str) -> None:
        """Raises FileError if something was chosen that a kind of dataset does not use.

        Args:
          used: The fields that it uses.
          what: It, for the message.
        """
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default and field.name not in used:
                raise FileError(
                    f"{field.name}={getattr(self, field.name)!r} is not for {what}: leave it out."
                )

    def fits(self, num_bytes: float) -> bool:
        """Returns whether examples of this size are to lie in memory."""
        if self.in_memory is None:
            return num_bytes <= memory_bytes() * _MEMORY_SHARE
        return self.in_memory
