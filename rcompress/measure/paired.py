"""Two networks on the same images: what one gets right and the other does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rcompress.measure.accuracy import Z_95


@dataclass(frozen=True)
class Paired:
    """A network's answers beside a reference's on the same images.

    Attributes:
        images: how many.
        lost: images that the reference gets right and the network wrong.
        gained: the other way round.
    """

    images: int
    lost: int
    gained: int

    @property
    def difference_percent(self) -> float:
        """The network's top-1 minus the reference's, in points."""
        return 100.0 * (self.gained - self.lost) / self.images

    @property
    def interval_percent(self) -> tuple[float, float]:
        """95 % interval of the difference, in points: adjusted Wald for paired proportions.

        Bonett and Price 2012 (Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based
        on Paired Data): one image more is counted on either side. It has a width even where no answer differs.
        """
        gained, lost = (self.gained + 1) / (self.images + 2), (self.lost + 1) / (self.images + 2)
        centre = gained - lost
        half = Z_95 * math.sqrt((gained + lost - centre**2) / (self.images + 2))
        return 100.0 * max(-1.0, centre - half), 100.0 * min(1.0, centre + half)

    @property
    def is_loss(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.interval_percent[1] < 0

    @property
    def is_gain(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.interval_percent[0] > 0

    def metrics(self) -> dict[str, float]:
        """The figures in the records' vocabulary."""
        low, high = self.interval_percent
        return {
            "top1_difference_points": self.difference_percent,
            "top1_difference_points_low": low,
            "top1_difference_points_high": high,
        }


def paired(correct: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Paired:
    """Compare ``correct`` with ``reference``, both bool (N,): which of the same N images each gets right."""
    return Paired(len(reference), int((reference & ~correct).sum()), int((correct & ~reference).sum()))
