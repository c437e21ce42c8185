"""A killed plan leaves no process behind, and ends, begun again, with the bytes of one that was not killed."""

from __future__ import annotations

import json
import os
import signal

import pytest
from disturbed import Course, long, until
from kills import disturb

MOMENTS = int(os.environ.get("EXPSTAR_FAULTS_MOMENTS", "20"))


def check(record):
    print(json.dumps(record))
    assert record["killed"] == record["moments"]
    assert record["left"] == []
    assert record["differing"] == []
    assert record["files"] > 5


def test_notebook_02_killed_twice_ends_like_one_that_was_not(small, tmp_path):
    check(disturb(tmp_path, 2, 1, **small))


@long
@pytest.mark.timeout(7200)
def test_the_smoke_plan_killed_at_many_moments_ends_like_one_that_was_not(tmp_path):
    check(disturb(tmp_path, MOMENTS, 1))


def test_sigterm_ends_two_jobs_their_kernels_and_children(small, tmp_path):
    runs = {str(tmp_path / name): {"profile": "tiny", "seed": seed} for name, seed in (("a", 1), ("b", 2))}
    course = Course(tmp_path, **small, runs=runs)
    process = course.start("--cores", "4")  # a job asks for two
    assert until(lambda: len(course.kernels()) == 2), course.log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert course.left() == {}
    course.finish("--cores", "2")
    assert len(course.results()) > 10


def test_the_second_of_two_schedules_is_refused_and_the_first_goes_on(small, tmp_path):
    course = Course(tmp_path, **small)
    first = course.start()
    assert until(lambda: course.running())
    other = Course(tmp_path / "second", **small, runs=course.plan["runs"])
    assert other.start().wait(60) == 2
    [line] = other.log.read_text().splitlines()
    assert line.startswith(f"run {course.run} is being run by process {first.pid} already"), line
    assert first.wait() == 0
    assert "2_datasets/metrics.json" in "".join(course.results())
