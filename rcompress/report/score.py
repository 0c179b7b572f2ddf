"""One number for a small and cheap network: storage and operations over a reference's."""

from __future__ import annotations

import polars as pl

SCORE = "micronet_score"
REFERENCE_PARAMETERS, REFERENCE_OPERATIONS = 5.6e6, 2.8e8
"""A ResNet-18 for images of 32 x 32 at 16 bits, counted in values of 32."""


def scored(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with ``micronet_score``, null where a row lacks what it takes.

    As in the MicroNet challenge (NeurIPS 2019), a parameter of b bits counts b / 32 and a zero nothing, and a MAC
    counts as its wider operand. Unlike there, no bitmask is counted for zeros, and multiplying by zero is not free.
    """
    if not {"nonzero_bits", "bit_operations"} <= set(frame.columns):
        return frame.with_columns(pl.lit(None, pl.Float64).alias(SCORE))
    storage = pl.col("nonzero_bits") / (32 * REFERENCE_PARAMETERS)
    operations = pl.col("bit_operations") / (32 * REFERENCE_OPERATIONS)
    return frame.with_columns((storage + operations).alias(SCORE))
