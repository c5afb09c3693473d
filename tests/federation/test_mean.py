from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from superlink_trio.federation import (
    NoExamples,
    Unfit,
    UnusableTensor,
    WeightedMean,
    parameters_to_ndarrays,
)
from superlink_trio.federation.arrays import write_array

VALUES = st.floats(-1000, 1000)
TOLERANCE = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12, "int32": 1e-12, "bool": 1e-12}


@st.composite
def models(draw: st.DrawFn) -> list[tuple[list[Any], int]]:
    """Models of the same shapes, each layer of each in a dtype of its own, and their weights."""
    shapes = draw(st.lists(npst.array_shapes(max_dims=2, max_side=3), min_size=1, max_size=3))
    drawn = []
    for _ in range(draw(st.integers(1, 6))):
        layers = [
            draw(npst.arrays(np.float64, shape, elements=VALUES)).astype(
                draw(st.sampled_from(sorted(TOLERANCE)))
            )
            for shape in shapes
        ]
        drawn.append((layers, draw(st.integers(0, 1000))))
    return drawn


def mean_of(weighted: list[tuple[list[Any], int]]) -> list[Any]:
    mean = WeightedMean()
    for layers, examples in weighted:
        mean.add([write_array(layer) for layer in layers], examples)
    return parameters_to_ndarrays(mean.take())


@given(models().filter(lambda drawn: any(examples for _, examples in drawn)))
def test_it_is_the_weighted_mean(weighted: list[tuple[list[Any], int]]) -> None:
    counted = [(layers, examples) for layers, examples in weighted if examples]
    examples = [number for _, number in counted]
    for layer, mean in enumerate(mean_of(weighted)):
        columns = [layers[layer] for layers, _ in counted]
        exact = np.average([c.astype(np.float64) for c in columns], axis=0, weights=examples)
        coarsest = max(TOLERANCE[column.dtype.name] for column in columns)
        scale = max(1.0, *(float(np.abs(c.astype(np.float64)).max()) for c in columns))
        assert np.abs(mean - exact).max() <= coarsest * scale


@pytest.mark.parametrize(
    ("dtypes", "result"),
    [
        (["float32", "float32"], "float32"),
        (["float64", "float64"], "float64"),
        (["float16", "float16"], "float16"),
        (["float32", "float64"], "float64"),
        (["float64", "float32"], "float64"),
        (["int64", "int64"], "float64"),
        (["bool", "bool"], "float64"),
        (["uint8", "float32"], "float64"),
        (["complex64", "complex64"], "complex64"),
        ([">f4", ">f4"], "float32"),
    ],
)
def test_dtypes(dtypes: list[str], result: str) -> None:
    [mean] = mean_of([([np.ones(2, dtype)], 1) for dtype in dtypes])
    assert mean.dtype.newbyteorder("=") == result
    assert mean.tolist() == [1, 1]


def test_many_float16_models_do_not_lose_the_mean() -> None:
    [mean] = mean_of([([np.full(1, value, np.float16)], 1) for value in [1, 2] * 500])
    assert mean.tolist() == [1.5]


@given(models())
def test_no_examples_at_all_is_an_error(weighted: list[tuple[list[Any], int]]) -> None:
    with pytest.raises(NoExamples, match="num_examples is 0"):
        mean_of([(layers, 0) for layers, _ in weighted])


@pytest.mark.parametrize(
    ("tensors", "examples", "error"),
    [
        ([write_array(np.ones(3)), write_array(np.ones(2))], 1, Unfit),
        ([write_array(np.ones((3, 1)))], 1, Unfit),
        ([write_array(np.ones(3))], -1, Unfit),
        ([], 1, Unfit),
        ([b"junk"], 1, UnusableTensor),
        ([write_array(np.ones(3))[:-1]], 1, UnusableTensor),
    ],
)
def test_what_does_not_fit_changes_nothing(
    tensors: list[bytes], examples: int, error: type[Exception]
) -> None:
    mean = WeightedMean()
    mean.add([write_array(np.full(3, 2.0))], 1)
    with pytest.raises(error):
        mean.add(tensors, examples)
    mean.add([write_array(np.full(3, 4.0))], 1)
    [array] = parameters_to_ndarrays(mean.take())
    assert array.tolist() == [3, 3, 3]
