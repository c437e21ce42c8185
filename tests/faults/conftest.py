"""What the fault tests run on: data and finished runs, made once."""

import sys

import pytest
import yaml
from disturbed import LONG, Course

from expstar_utils.mini.build import build
from expstar_utils.models import SHIPPED
from expstar_utils.profiles import load_profile

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # /proc, prctl and mount are Linux's


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """Data of one subject, or with EXPSTAR_FAULTS=1 of two."""
    folder = tmp_path_factory.mktemp("mini")
    build(folder, workers=1, subjects=["biology", "chemistry"] if LONG else ["chemistry"], small=True)
    return folder


@pytest.fixture(scope="session")
def small(mini):
    """Plan of notebook 02 alone."""
    return {"data_root": str(mini), "render": False, "stages": ["02"]}


@pytest.fixture(scope="session")
def finished(small, tmp_path_factory):
    """Notebook 02's finished run; tests work on copies of it."""
    course = Course(tmp_path_factory.mktemp("finished"), **small)
    course.finish()
    return course


@pytest.fixture(scope="session")
def whole(mini, tmp_path_factory):
    """A finished run of every stage at smoke size; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("whole")
    profile = folder / "choosing.yaml"
    choosing = load_profile("tiny", dpo={"positive": 0.25, "margin": 0.0, "temperature": 1.5})
    profile.write_text(yaml.safe_dump(choosing.model_dump(mode="json")), encoding="utf8")
    course = Course(folder, data_root=str(mini), raw_root=str(mini), render=False,
                    runs={str(folder / "run"): {"profile": str(profile), "seed": 42}},
                    stages=["02", "03", "04a", "04b", "05", "06", "07"],
                    parameters={"03": {"tower": "train", "tower_steps": 2},
                                "04b": {"adapter": str(SHIPPED / "adapter")}})  # that of two steps writes nothing to choose from
    course.finish()
    return course
