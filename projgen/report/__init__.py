"""Measurements and analysis as one table on the terminal and one self-contained HTML page."""

from projgen.report.page import write_folder_report, write_report
from projgen.report.records import Level, ModelReport, SummaryRow, arena_buffers
from projgen.report.terminal import print_summary

__all__ = [
    "Level",
    "ModelReport",
    "SummaryRow",
    "arena_buffers",
    "print_summary",
    "write_folder_report",
    "write_report",
]
