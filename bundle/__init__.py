"""Stroke lesion segmentation on T1w MRI with AGMR-Net and TSRL-Net, as a MONAI bundle.

Importing this package loads neither torch nor MONAI and changes nothing; ``import bundle.monai_registry`` registers its
losses and networks with MONAI.
"""
