"""Strips of small images as PNG files of whole pixels, a few hundred bytes each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

__all__ = ["png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_WITH_ALPHA = 4  # PNG's number of that kind of pixel


def png(images: Sequence[Sequence[float]], height: int, width: int, low: float, high: float) -> bytes:
    """Images of height x width values side by side, `low` black and `high` white, a clear pixel between them."""
    values = (np.asarray(images, dtype=float).reshape(-1, height, width) - low) / (high - low)
    grey = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    pixels = np.stack([grey, np.full_like(grey, 255)], axis=-1)
    spaced = np.pad(pixels, ((0, 0), (0, 0), (0, 1), (0, 0)))  # zeros: clear
    strip = np.concatenate(list(spaced), axis=1)[:, :-1]
    rows = b"".join(b"\0" + row.tobytes() for row in strip)  # each row after the number of its filter, none
    header = struct.pack(">IIBBBBB", strip.shape[1], height, 8, _GREY_WITH_ALPHA, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
