"""The data of what a process says."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from natsproc.errors import BadPayload
from natsproc.speaking import metric_data


class Tensor:
    """As NumPy and PyTorch have them: a number that is no float."""

    def __float__(self) -> float:
        return 0.25


def test_a_metric_takes_whatever_is_a_number():
    given = {"a": 1, "b": 0.5, "c": Decimal("2.5"), "d": Fraction(1, 4), "e": Tensor()}
    assert metric_data(given) == {"a": 1, "b": 0.5, "c": 2.5, "d": 0.25, "e": 0.25}
    assert math.isnan(metric_data({"loss": math.nan})["loss"])


@pytest.mark.parametrize("value", ["0.3", b"1", None, [1.0], {}, 1j, object()])
def test_a_metric_takes_nothing_else(value):
    with pytest.raises(BadPayload, match=r"metric 'loss'.* is a number"):
        metric_data({"loss": value})
