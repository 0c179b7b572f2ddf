"""Architectures by name, networks rebuilt from checkpoints, weights from elsewhere."""

from rcompress.models.rebuild import LoadedModel, load_model, rebuild
from rcompress.models.zoo import ARCHITECTURES, build_model

__all__ = ["ARCHITECTURES", "LoadedModel", "build_model", "load_model", "rebuild"]
