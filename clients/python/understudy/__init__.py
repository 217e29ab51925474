"""Understudy from Python: energies, forces and their uncertainty from a gateway."""
