"""Thin arq jobs and ticks; no rule lives here. `python -m workers` runs them."""
