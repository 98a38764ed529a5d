"""Uniform quintic B-splines: their polynomials, and the coefficients of the spline through given values."""

from __future__ import annotations

import functools
import math

import numpy as np

DEGREE = 5
"""Of the splines: an interval sees one more row of coefficients than this."""


@functools.lru_cache(maxsize=16)
def pieces(order: int) -> np.ndarray:
    """Derivative of ``order`` of the six B-splines of an interval as polynomials: (power, spline), float64."""
    from scipy.interpolate import BSpline

    if order > DEGREE:
        return np.zeros((1, DEGREE + 1))
    element = BSpline.basis_element(np.arange(DEGREE + 2.0))
    # by Taylor series; spline j of an interval began DEGREE - j intervals ago
    starts = np.arange(DEGREE, -1.0, -1.0)
    powers = range(DEGREE + 1 - order)
    return np.array([element.derivative(order + power)(starts) / math.factorial(power) for power in powers])


def points(intervals: int) -> np.ndarray:
    """Points that fix a spline, in intervals: all knots, and middles near the ends in place of end conditions."""
    return np.sort(np.concatenate([np.arange(intervals + 1.0), [0.5, 1.5, intervals - 1.5, intervals - 0.5]]))


@functools.lru_cache(maxsize=8)
def collocation_inverse(intervals: int) -> np.ndarray:
    """Matrix (intervals + 5,)^2 from values at ``points`` to the coefficients of the spline through them, float64."""
    places = points(intervals)
    index = np.minimum(places.astype(int), intervals - 1)
    shares = (places - index)[:, None] ** np.arange(DEGREE + 1) @ pieces(0)
    matrix = np.zeros((len(places), len(places)))
    for i in range(DEGREE + 1):
        matrix[np.arange(len(places)), index + i] += shares[:, i]
    return np.linalg.inv(matrix)
