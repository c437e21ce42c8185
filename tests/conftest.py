"""Fixtures of several test files."""

import os

import pytest
import torch
from endpoint import endpoints
from small_runs import noise_clips

from expstar_utils import models
from expstar_utils.miniatures import MINIATURES

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores have a process each
    import ctranslate2  # noqa: F401  (reads the variable when it is loaded: what Whisper hears hangs on its threads)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

LONG = ("test_notebooks", "slurm/", "test_launching", "faults/", "test_demo")


def pytest_collection_modifyitems(items):
    """Files that take minutes come first, so that all processes end together (with `--no-loadscope-reorder`)."""
    def place(item):
        path = item.nodeid.split("::")[0]
        return next((number for number, name in enumerate(LONG) if name in path), len(LONG))
    items.sort(key=place)


@pytest.fixture(scope="module", params=MINIATURES)
def base(request, tmp_path_factory):
    """Folder of a miniature, each family in turn."""
    torch.set_num_threads(1)
    return MINIATURES[request.param](tmp_path_factory.mktemp("base") / request.param)


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory):
    """The miniature of our own family: (model, processor)."""
    torch.set_num_threads(1)
    return models.load(str(MINIATURES["smolvlm"](tmp_path_factory.mktemp("smolvlm"))))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of six clips of noise, 1 to 3 s long."""
    return noise_clips(tmp_path_factory.mktemp("clips"), [1, 2, 3, 1, 2, 3])


@pytest.fixture
def endpoint():
    """Function (answers) -> (base_url, requests so far) of a made-up chat endpoint, see `endpoint.endpoints`."""
    with endpoints() as serve:
        yield serve
