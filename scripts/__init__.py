"""Thin commands, one job each, run as ``python -m scripts.<job>`` from the bundle's root."""
