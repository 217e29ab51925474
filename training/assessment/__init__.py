"""How good a model is on labelled frames, and which of two is better: errors with intervals, tables and pages.

judged.py      a model to be judged: published, or a run
labelled.py    labelled files
bootstrap.py   errors with intervals over molecules
evaluate.py    one model on files: by size, formula, element; calibration
comp6.py       the COMP6 protocol
compare.py     two models on the same frames
page.py        tables and figures as a page
command.py     the commands
"""
