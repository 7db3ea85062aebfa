"""The train step and what surrounds it. Knows an objective by its protocol only (step.py)."""
