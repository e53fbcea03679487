"""What is made of one volume for people to look at."""

from bundle.volumes.picture import (
    Agreement,
    agreement,
    save_lesion_overview,
    save_lesion_slices,
    save_montage,
    save_volume_distribution,
)

__all__ = [
    "Agreement",
    "agreement",
    "save_lesion_overview",
    "save_lesion_slices",
    "save_montage",
    "save_volume_distribution",
]
