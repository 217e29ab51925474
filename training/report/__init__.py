"""A readable page about a training run: what it is, how good it is, what it cost, and how to make it again.

folder.py     reads the run
summary.py    the run in words and numbers
errors.py     errors of the run and of what it is compared with
trust.py      whether the committee's spread tells the size of its error
coarse.py     a coarse-grained force field, which has forces and distributions and no energies
flow.py       a run that predicts flow through porous media
figures.py    inline SVG
page.py       report.html: self-contained, no scripts
"""

from training.report.folder import IncompleteRun
from training.report.page import write_report

__all__ = ["IncompleteRun", "write_report"]
