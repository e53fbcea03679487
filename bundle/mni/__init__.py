"""The MNI152 template, and where a head is in its space.

With NumPy and SciPy alone, so that a head is read and registered while another process still imports torch.
"""

from bundle.mni.heads import air_to_zero, head_mask
from bundle.mni.registration import RegistrationResult, find_failure, load_registration, register_to_mni
from bundle.mni.template import TEMPLATE, atlas_brain, atlas_grid, load_template

__all__ = [
    "TEMPLATE",
    "RegistrationResult",
    "air_to_zero",
    "atlas_brain",
    "atlas_grid",
    "find_failure",
    "head_mask",
    "load_registration",
    "load_template",
    "register_to_mni",
]
