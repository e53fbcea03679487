"""The imports that all workers of a batch share in memory: most of a worker's memory is its libraries."""

import gc

from bundle.lean_imports import lean_imports
from bundle.mni import load_registration

with lean_imports():
    from bundle.volumes import workers

__all__ = ["workers"]

load_registration()
gc.freeze()  # else a worker's first collection writes to every object, and so copies them all
