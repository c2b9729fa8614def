"The lock file: exact, hashed, and one that satisfies pyproject on every Python that CI runs."

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings its twin
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements-ci.txt").read_text()
ENTRIES = [entry for entry in LOCK.replace("\\\n", " ").splitlines() if entry and not entry.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
PYTHONS = CI["jobs"]["test"]["strategy"]["matrix"]["python"]


def locked(python):
    "name -> version on Linux with this Python."
    machine = dict(sys_platform="linux", platform_machine="x86_64", platform_system="Linux", os_name="posix", extra="")
    machine |= dict(python_version=python, python_full_version=f"{python}.9", implementation_name="cpython")
    machine |= dict(platform_python_implementation="CPython")
    found = {}
    for entry in ENTRIES:
        requirement = Requirement(entry.split(" --hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(machine):
            assert requirement.name not in found, f"{requirement.name} twice with Python {python}"
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            found[canonicalize_name(requirement.name)] = exact.version
    return found, machine


def test_every_entry_is_exact_and_hashed():
    assert len(ENTRIES) > 100
    for entry in ENTRIES:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_no_index_and_no_address():
    assert "://" not in LOCK and not re.search(
        r"^\s*-|@ file|--(index|extra|find|trusted)", LOCK.replace("    --hash", ""), re.M
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_pyproject(python):
    versions, machine = locked(python)
    wanted = (
        PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"] + PROJECT["optional-dependencies"]["workflow"]
    )
    for line in wanted:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"] or (requirement.marker and not requirement.marker.evaluate(machine)):
            continue
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements-ci.txt for Python {python}: make lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{line} is locked to {version}: make lock"
    assert versions["setuptools"].split(".")[0] >= "77", "the build needs it, and --no-build-isolation"
