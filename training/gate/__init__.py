"""Admission: what a version must show before it enters the model repository. It measures, it does not believe.

files.py         plain files, graphs without foreign or racing operators, nothing outside the folder
papers.py        the card: units, signs, digests, sources
parity.py        every format against the network in float64
derivatives.py   forces and virials against finite differences
symmetry.py      translation, rotation, permutation
size.py          copies, doubled cells, atoms alone
isolation.py     batch-mates
meaning.py       cutoff, elements, members, the answers of the trained run, the trivial baseline
"""
