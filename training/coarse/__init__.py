"""Coarse-grained liquids: atoms to beads, what beads feel, how they are arranged, and dynamics of beads alone.

mapping.py        atoms to beads, with the force that each bead feels
frames.py         bead frames of several thermodynamic states, in files and in parts
repulsion.py      the repulsive prior fitted to a data set
distributions.py  radial and angular distributions, and how far two are apart
pair_splines.py   the linear baseline: one pair force, by least squares
dynamics.py       canonical trajectories of beads
"""
