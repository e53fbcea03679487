"""What is made of one volume for people to look at."""

from bundle.volumes.picture import Agreement, agreement, save_montage

__all__ = ["Agreement", "agreement", "save_montage"]
