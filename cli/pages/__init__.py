"""Pages of runs: report.html, and compare.html of several. Without TensorFlow."""

from .comparison import compare
from .report_page import write

__all__ = ["compare", "write"]
