"""Pages of runs: report.html, and compare.html of several. Without TensorFlow."""

from .report_page import write

__all__ = ["write"]
