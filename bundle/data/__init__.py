"""Data: datalists, the slice dataset and the simulator."""

from bundle.data.datalists import check_datalist, find_images, load_datalist, split_datalist
from bundle.data.simulated_slices import SimulatedSliceDataset
from bundle.data.slice_dataset import SliceDataset, SliceSampler
from bundle.data.volume_stream import VolumeStream

__all__ = [
    "SimulatedSliceDataset",
    "SliceDataset",
    "SliceSampler",
    "VolumeStream",
    "check_datalist",
    "find_images",
    "load_datalist",
    "split_datalist",
]
