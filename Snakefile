"""The notebooks of a plan (`notebooks/plans/*.yaml`) as papermill jobs; `python -m expstar_utils.schedule PLAN` calls it.

Every job leaves marks in `<run>/jobs/`, small files with the hashes of its results; jobs depend on those, on parameters, and on a
key of code, data and settings (`expstar_utils.plans`). What a mark's job really has to do, it finds itself (`expstar_utils.jobs`).
"""

import sys

from expstar_utils.plans import MINI, STAGES, load_plan

plan = load_plan(config["plan"], **{key: value for key, value in config.items() if key != "plan"})
jobs = {(job.run, job.name): job for job in plan.jobs}
targets = [str(job.mark(group)) for job in plan.jobs for group in job.groups]


wildcard_constraints:
    job="[^/]+"


def needs(wildcards):
    """Marks of the jobs before."""
    return sorted({mark for group in jobs[wildcards.run, wildcards.job].groups.values() for mark in group.needs})


def asked(wildcards):
    """What the job asks for, by its run's profile."""
    return plan.resources(jobs[wildcards.run, wildcards.job])


rule all:
    input:
        targets,


for stage, groups in {MINI: [""], **STAGES}.items():

    rule:
        name:
            f"stage_{stage}"
        input:
            needs,
        output:
            *["{run}/jobs/{job}" + f"{group and '.'}{group}.json" for group in groups],
        wildcard_constraints:
            job=stage + (r"(-[^/]+)?(\.shard-\d+)?" if stage == "05" else r"(\.shard-\d+)?"),
        params:
            job=lambda wildcards: jobs[wildcards.run, wildcards.job].model_dump_json(),
        threads: lambda wildcards: asked(wildcards).cpus
        resources:
            mem_mb=lambda wildcards: 1024 * asked(wildcards).mem_gib,
            runtime=lambda wildcards: asked(wildcards).minutes,
            gpu=lambda wildcards: asked(wildcards).gpus,
        message:
            "{wildcards.job} of {wildcards.run}"
        shell:
            "exec {sys.executable} -m expstar_utils.jobs {params.job:q} --parent $PPID"
