"""Data: datalists, the slice dataset and the simulator."""

from bundle.data.datalists import check_datalist, find_images, load_datalist, split_datalist
from bundle.data.device_slices import DeviceSliceLoader
from bundle.data.simulated_slices import SimulatedSliceDataset
from bundle.data.slice_dataset import SliceDataset, SliceSampler
from bundle.data.volume_stream import VolumeStream

__all__ = [
    "DeviceSliceLoader",
    "SimulatedSliceDataset",
    "SliceDataset",
    "SliceSampler",
    "VolumeStream",
    "check_datalist",
    "find_images",
    "load_datalist",
    "split_datalist",
]
