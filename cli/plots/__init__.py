"""Pictures of a run. They need matplotlib (the extra `plots`), and no TensorFlow."""

from .classes import is_of_images, plot_confusion_matrix, plot_worst_mistakes
from .history import plot_history
from .numbers import plot_numbers
from .several import Curve, plot_runs

__all__ = [
    "Curve",
    "is_of_images",
    "plot_confusion_matrix",
    "plot_history",
    "plot_numbers",
    "plot_runs",
    "plot_worst_mistakes",
]
