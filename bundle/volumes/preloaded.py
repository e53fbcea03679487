"""What the workers of a batch have in memory once for all of them: most of a worker is the libraries it has loaded."""

import gc

from bundle.transforms.mni_registration import load_registration
from bundle.volumes import workers

__all__ = ["workers"]

load_registration()
gc.freeze()  # or a worker's first collection writes to every object, and has them all to itself
