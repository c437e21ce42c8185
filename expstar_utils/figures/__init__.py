"""Figures and tables of the paper and of a run, drawn from numbers on disk."""
