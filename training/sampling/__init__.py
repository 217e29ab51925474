"""Geometries that a labeller is asked for: molecules, conformers, torsions, dimers, and dynamics."""
