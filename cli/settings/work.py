"""WorkSettings: what is trained, and with what."""

from __future__ import annotations

import dataclasses

from gradloop.engine.options import option

RECIPE = "the model's recipe"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """What is trained, and with what."""

    model: str = option("cnn", "what", "name of the model", on_resume="refused")
    learning_rate: float | None = option(
        None, "training", "learning rate of the optimizer", above=0, default_text=RECIPE
    )
