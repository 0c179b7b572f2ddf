"""Datasets by name, their honest splits, and the way from stored images to network inputs."""

from rcompress.data.catalog import (
    NAMES,
    check_matches,
    dataset_for,
    default_data_dir,
    matching_dataset,
    open_dataset,
)
from rcompress.data.dataset import SPLITS, Augmentation, Dataset, MemorySource, Split
from rcompress.data.preprocess import input_batches, network_inputs, normalize
from rcompress.data.split import balanced_indices

__all__ = [
    "NAMES",
    "SPLITS",
    "Augmentation",
    "Dataset",
    "MemorySource",
    "Split",
    "balanced_indices",
    "check_matches",
    "dataset_for",
    "default_data_dir",
    "input_batches",
    "matching_dataset",
    "network_inputs",
    "normalize",
    "open_dataset",
]
