"""Layers and models as files: safetensors, with the configuration as JSON in the metadata. Nothing in one is trusted.

``files`` says what a file holds, ``container`` is the safetensors format, ``atomic`` brings bytes onto the disk.
"""

from .files import load, read, save, write

__all__ = ["load", "read", "save", "write"]
