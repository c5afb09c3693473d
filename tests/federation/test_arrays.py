from __future__ import annotations

import numpy as np
import pytest

from superlink_trio.federation import (
    Parameters,
    UnusableTensor,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.federation.arrays import read_array, write_array


def test_reading_copies_nothing_but_the_user_gets_arrays_of_their_own() -> None:
    tensor = write_array(np.arange(3.0))
    assert not read_array(tensor).flags.writeable
    [array] = parameters_to_ndarrays(Parameters([tensor]))
    array += 1
    assert array.tolist() == [1, 2, 3]
    assert read_array(tensor).tolist() == [0, 1, 2]


def test_a_model_is_its_arrays() -> None:
    parameters = ndarrays_to_parameters([np.zeros((2, 3)), np.ones(4, np.float32)])
    assert parameters.tensor_type == "numpy.ndarray"
    first, second = parameters_to_ndarrays(parameters)
    assert (first.shape, second.dtype.name) == ((2, 3), "float32")


@pytest.mark.parametrize("tensor", [b"", b"junk", write_array(np.array(["text"]))])
def test_what_holds_no_numbers_is_unusable(tensor: bytes) -> None:
    with pytest.raises(UnusableTensor, match="a tensor"):
        read_array(tensor)


def test_objects_do_not_travel() -> None:
    with pytest.raises(ValueError, match="object"):
        ndarrays_to_parameters([np.array([object()])])
