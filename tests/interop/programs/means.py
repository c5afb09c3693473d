"""Our mean of models beside both of Flower's, on random models. Runs where both packages are."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.server.strategy.aggregate import aggregate, aggregate_inplace
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from superlink_trio.federation import WeightedMean, parameters_to_ndarrays

DTYPES = ("float32", "float64", "int32")
SHAPES = st.lists(npst.array_shapes(max_dims=3, max_side=3), min_size=1, max_size=3)


@st.composite
def results(draw: st.DrawFn) -> list[tuple[list[Any], int]]:
    shapes = draw(SHAPES)
    return [
        (
            [
                draw(npst.arrays(np.float64, shape, elements=st.floats(-100, 100))).astype(
                    draw(st.sampled_from(DTYPES))
                )
                for shape in shapes
            ],
            draw(st.integers(1, 10_000)),
        )
        for _ in range(draw(st.integers(1, 8)))
    ]


@settings(deadline=None, max_examples=300)
@given(results())
def compare(weighted: list[tuple[list[Any], int]]) -> None:
    mean = WeightedMean()
    fitted = []
    for arrays, examples in weighted:
        parameters = ndarrays_to_parameters(arrays)
        mean.add(parameters.tensors, examples)
        fitted.append((None, FitRes(Status(Code.OK, ""), parameters, examples, {})))
    ours = parameters_to_ndarrays(mean.take())
    for theirs in (aggregate(weighted), aggregate_inplace(fitted)):
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype == other.dtype, (mine.dtype, other.dtype)
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-4)


if __name__ == "__main__":
    compare()
    print('{"compared": true}', flush=True)
