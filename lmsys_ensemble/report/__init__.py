"""One offline HTML page on predictions, their blend and its calibration."""

from lmsys_ensemble.report.page import write_report

__all__ = ["write_report"]
