"""The units and container files in docs/ fit the program that they run."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from yamllint import linter  # type: ignore[import-untyped]  # ships no types
from yamllint.config import YamlLintConfig  # type: ignore[import-untyped]

from superlink_trio import run_superlink
from superlink_trio.cli.arguments import read
from superlink_trio.cli.programs import SUPERLINK
from superlink_trio.config import OPTIONS, SuperLinkConfig, build

DOCS = Path(__file__).parents[1] / "docs"
KUBERNETES = DOCS / "container" / "kubernetes.yaml"
DOCKERFILE = DOCS / "container" / "Dockerfile"
UNITS = [DOCS / "systemd" / f"superlink-trio.{kind}" for kind in ("service", "socket")]

GRACE = SuperLinkConfig().grace
LINT = "{extends: default, rules: {line-length: {max: 110}, braces: {max-spaces-inside: 0}}}"


def unit(file: Path) -> dict[str, dict[str, str]]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its document says
    parser.read_string(file.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.fixture
def service() -> dict[str, str]:
    return unit(UNITS[0])["Service"]


@pytest.fixture
def objects() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text())}


@pytest.fixture
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["StatefulSet"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [one] = pod["containers"]
    assert isinstance(one, dict)
    return one


def given_in(text: str, tmp_path: Path, *words: str) -> list[str]:
    """Give the faults of a file with options, and of words besides."""
    file = tmp_path / "superlink.toml"
    file.write_text(text)
    settings = read(SUPERLINK, ["--config", str(file), *words])
    build(settings, SUPERLINK.apis)
    return settings.faults


def test_systemd_verifies_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian's systemd)")
    # The program is not where it will be.
    for file in UNITS:
        text = file.read_text().replace("/opt/superlink-trio/bin/superlink-trio", "/bin/true")
        (tmp_path / file.name).write_text(text)
    command = ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")


def test_systemd_waits_for_longer_than_the_grace(service: dict[str, str]) -> None:
    assert int(service["TimeoutStopSec"]) >= GRACE + 5


def test_the_service_may_open_a_file_for_each_connection(service: dict[str, str]) -> None:
    assert int(service["LimitNOFILE"]) > 2 * SuperLinkConfig().max_connections


def test_the_apps_of_runs_are_unpacked_where_the_service_may_write(
    service: dict[str, str],
) -> None:
    assert service["Environment"].startswith(f"FLWR_HOME=/var/lib/{service['StateDirectory']}/")


def test_the_units_of_replicas_are_made_as_the_document_says(tmp_path: Path) -> None:
    document = (DOCS / "balancing.md").read_text()
    [loop] = re.findall(r"```sh\n(for api in .*?done\n)", document, re.DOTALL)
    loop = loop.replace("/etc/systemd/system", str(tmp_path))
    subprocess.run(["sh", "-eu", "-c", loop], check=True, cwd=DOCS.parent, timeout=60)
    for api in ("fleet-api", "driver-api"):
        made = unit(tmp_path / f"superlink-{api}.service")
        assert made["Unit"]["StartLimitIntervalSec"] == "0"
        assert made["Service"]["ExecStart"] == (
            f"/opt/superlink-trio/bin/superlink-trio {api} --config /etc/superlink-trio/{api}.toml"
        )


def test_the_socket_is_for_an_option() -> None:
    socket = unit(UNITS[1])["Socket"]
    assert socket["FileDescriptorName"] == OPTIONS.options["rest_fleet_api_address"].key
    assert socket["ListenStream"] == "9093"


def test_the_yaml_is_well_formed() -> None:
    problems = linter.run(KUBERNETES.read_text(), YamlLintConfig(LINT))
    assert [str(problem) for problem in problems] == []


def test_kubernetes_waits_for_longer_than_the_grace(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + GRACE + 5


async def test_the_probes_ask_what_is_served(
    container: dict[str, Any], nursery: trio.Nursery
) -> None:
    names = ("driver_api_address", "grpc_rere_fleet_api_address", "admin_address")
    addresses: dict[str, Any] = dict.fromkeys(names, "127.0.0.1:0")
    config = SuperLinkConfig(**addresses)
    link = await nursery.start(run_superlink, config)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for kind in ("startup", "readiness", "liveness"):
        probe = container[f"{kind}Probe"]["httpGet"]
        assert ports[probe["port"]] == 9190
        url = f"http://{link.admin_address}{probe['path']}"
        response = await trio.to_thread.run_sync(urllib.request.urlopen, url)
        with response:
            assert response.status == 200
    await link.stop()


def test_the_options_of_the_container_can_run(
    objects: dict[str, Any], container: dict[str, Any], tmp_path: Path
) -> None:
    _, _, *words = container["args"]
    assert given_in(objects["ConfigMap"]["data"]["superlink.toml"], tmp_path, *words) == []


def test_files_in_the_container_are_where_they_are_mounted(
    objects: dict[str, Any], container: dict[str, Any]
) -> None:
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    text = objects["ConfigMap"]["data"]["superlink.toml"] + " ".join(container["args"])
    for path in re.findall(r'/[^"\s]+/', text):
        assert path.rstrip("/") in mounted


def test_the_image_and_the_pod_have_one_user(pod: dict[str, Any]) -> None:
    assert "USER 971:971\n" in DOCKERFILE.read_text()
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 971


def test_the_image_gets_signals_itself_and_sets_options_that_exist() -> None:
    text = DOCKERFILE.read_text()
    assert 'ENTRYPOINT ["superlink-trio"]' in text
    variables = {option.variable for option in OPTIONS.options.values()}
    assert set(re.findall(r"SUPERLINK_\w+", text)) <= variables
