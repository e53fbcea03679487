"""Lets PyPI's torchvision, which is built for CUDA, be imported beside a torch without it.

Python imports a module of this name first of all where its folder is in PYTHONPATH: in the server, and in each process
that the server starts. Without CUDA the operators of torchvision cannot be loaded; MONAI Label needs none of them, but
the import asks for the schemas of these two.
"""

from __future__ import annotations

from importlib.metadata import version

import torch

if torch.version.cuda is None and "+cpu" not in version("torchvision"):
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
