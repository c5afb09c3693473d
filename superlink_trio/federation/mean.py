"""The weighted mean of models, computed while they come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from superlink_trio.federation.arrays import read_array, write_array
from superlink_trio.federation.types import Parameters
from superlink_trio.wire.npy import NDArray


class NoExamples(ValueError):
    """A mean over no examples at all."""


class Unfit(ValueError):
    """A model that cannot be part of a mean: its message says why."""


class WeightedMean:
    """A mean of models, weighted by their numbers of examples, that keeps one model in memory.

    Each model moves the mean towards itself by its share of the examples so far, which loses no
    precision to large sums and needs no total in advance. Floats keep their dtype (float16 is
    summed as float32), integers become float64; where models differ in dtype the mean has the
    one that numpy promotes them to.

    Source: D. H. D. West, Updating mean and variance estimates: an improved method, CACM 22 (1979)
    """

    def __init__(self) -> None:
        self.examples = 0
        self._shapes: Sequence[tuple[int, ...]] | None = None
        self._dtypes: list[np.dtype] = []
        self._mean: list[NDArray] = []

    def add(self, tensors: Sequence[bytes | memoryview], examples: int) -> None:
        """Take in a model, given as .npy files.

        Raises Unfit or UnusableTensor, and is as it was before, for a model that does not look
        like those before it.
        """
        if examples < 0:
            raise Unfit(f"it claims {examples} examples")
        arrays = [read_array(tensor) for tensor in tensors]
        self._check([array.shape for array in arrays])
        if examples == 0:
            return
        self.examples += examples
        if not self._mean:
            self._dtypes = [_result_dtype(array.dtype) for array in arrays]
            self._mean = [array.astype(_working_dtype(array.dtype)) for array in arrays]
            return
        share = examples / self.examples
        for layer, array in enumerate(arrays):
            self._move(layer, array, share)

    def take(self) -> Parameters:
        """Give the mean, serialised, and forget it. Raises NoExamples."""
        if self.examples == 0:
            raise NoExamples("no result was trained on any example: num_examples is 0 in each")
        tensors = []
        for layer, dtype in enumerate(self._dtypes):
            tensors.append(write_array(self._mean[layer].astype(dtype, copy=False)))
            self._mean[layer] = np.empty(0)
        self._mean, self.examples = [], 0
        return Parameters(tensors, "numpy.ndarray")

    def _check(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if self._shapes is None:
            self._shapes = shapes
        elif len(shapes) != len(self._shapes):
            raise Unfit(f"its model has {len(shapes)} layers, others have {len(self._shapes)}")
        else:
            for layer, (shape, others) in enumerate(zip(shapes, self._shapes, strict=True)):
                if shape != others:
                    raise Unfit(f"its layer {layer} has shape {shape}, others have {others}")

    def _move(self, layer: int, array: NDArray, share: float) -> None:
        self._dtypes[layer] = np.result_type(self._dtypes[layer], _result_dtype(array.dtype))
        mean = self._mean[layer].astype(_working_dtype(self._dtypes[layer]), copy=False)
        step = np.subtract(array, mean, dtype=mean.dtype)
        step *= share
        mean += step
        self._mean[layer] = mean


def _result_dtype(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind in "fc" else np.dtype(np.float64)


def _working_dtype(dtype: np.dtype) -> np.dtype:
    return np.result_type(_result_dtype(dtype), np.float32)
