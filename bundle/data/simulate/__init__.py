"""The simulator of chronic stroke: what it makes is simulated, not a patient."""

from bundle.data.simulate.case import SimulatedCase, simulate_case
from bundle.data.simulate.cases import SimulatedCases
from bundle.data.simulate.lesions import ATLAS_QUANTILES_ML, LesionMasks, draw_volume_ml
from bundle.data.simulate.tissues import Head, Tissue, load_head, load_heads

__all__ = [
    "ATLAS_QUANTILES_ML",
    "Head",
    "LesionMasks",
    "SimulatedCase",
    "SimulatedCases",
    "Tissue",
    "draw_volume_ml",
    "load_head",
    "load_heads",
    "simulate_case",
]
