"""Which values of a metric are better, by its name. For processes without Keras, which knows."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MORE = r"acc|accuracy|auc|precision|recall|f1|f1_score|fbeta_score|iou|r2_score|bleu|similarity"
_LESS = r"loss|error|mse|mae|rmse|mape|msle|divergence|perplexity|crossentropy"


def direction_of(metric: str, direction: str | None = None) -> str | None:
    """Returns "max" or "min"; None if the name does not tell.

    Args:
      metric: Its name.
      direction: What a person says; None: nothing.

    Example:
      >>> direction_of("val_top_5_accuracy"), direction_of("val_loss"), direction_of("reward")
      ('max', 'min', None)
    """
    if direction is not None:
        return direction
    for word, pattern in (("min", _LESS), ("max", _MORE)):
        if re.search(rf"(^|_)({pattern})(_|$)", metric.lower()):
            return word
    return None


def directions_of(metrics: Iterable[str], direction: str | None) -> dict[str, str | None]:
    """Returns the direction of each of some metrics where a person says one; None: as each says.

    One metric has that direction. Of several, those have it whose names tell none.

    Example:
      >>> directions_of(["val_loss"], "max"), directions_of(["val_loss", "reward"], "max")
      ({'val_loss': 'max'}, {'val_loss': 'min', 'reward': 'max'})
    """
    named = dict.fromkeys(metrics)
    if direction is None or len(named) == 1:
        return dict.fromkeys(named, direction)
    return {metric: direction_of(metric) or direction for metric in named}
