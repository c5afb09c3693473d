from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.runs import Fab, Run, Scalar, read_run, write_fab, write_run

scalars: st.SearchStrategy[Scalar] = (
    st.floats(allow_nan=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text()
    | st.binary()
)


@given(st.dictionaries(st.text(), scalars, max_size=5))
def test_a_run_comes_back_as_it_was_described(config: dict[str, Scalar]) -> None:
    run = Run(run_id=7, fab_id="f", fab_version="1", override_config=config, fab_hash="h")
    on_the_wire = write_run(run)
    request = pb.CreateRunRequest(fab_id="f", fab_version="1", fab=pb.Fab(hash_str="h"))
    for key, scalar in on_the_wire.override_config.items():
        request.override_config[key].CopyFrom(scalar)
    read = read_run(request)
    assert read.override_config == config
    assert {k: type(v) for k, v in read.override_config.items()} == {
        k: type(v) for k, v in config.items()
    }
    assert (on_the_wire.run_id, read.fab_id, read.fab_version, read.fab_hash) == (7, "f", "1", "h")


def test_a_value_without_content_is_left_out() -> None:
    request = pb.CreateRunRequest()
    request.override_config["empty"].SetInParent()
    assert read_run(request).override_config == {}


def test_a_bundle_is_answered_with_its_hash() -> None:
    assert write_fab(Fab(hash="h", content=b"c")) == pb.Fab(hash_str="h", content=b"c")
