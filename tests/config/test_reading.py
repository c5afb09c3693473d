from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.config import OPTIONS, Apis, Settings, SuperLinkConfig, build
from superlink_trio.config.reading import read_toml

scalars = st.booleans() | st.integers() | st.floats() | st.text()


def test_every_option_is_a_field_or_folded_into_one() -> None:
    folded = {"grpc_rere", "rest", "vce", "fleet_api_address"}
    folded |= {"fleet_api_num_workers", "rest_fleet_api_workers"}
    folded |= {"ssl_ca_certfile", "storage_dir", "auth_list_public_keys", "control_api_address"}
    folded |= {"auth_superlink_private_key", "auth_superlink_public_key"}
    of_the_program = {"config", "log_level", "log_format"}
    fields = {field.name for field in attrs.fields(SuperLinkConfig)}
    assert set(OPTIONS.options) - folded - of_the_program == fields


@given(
    st.dictionaries(
        st.sampled_from([*OPTIONS.options, "unknown"]),
        scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars),
    )
)
def test_any_value_in_a_file_is_a_config_or_faults(table: dict[str, Any]) -> None:
    settings = Settings(OPTIONS)
    read_toml(settings, Path("x.toml"), table)
    build(settings, Apis.BOTH)
    assert all(settings.faults)
