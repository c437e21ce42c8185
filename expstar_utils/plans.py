"""A plan: which runs, rows and shards are to be made, as jobs that say what each depends on; the Snakefile schedules them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from expstar_utils.content import data_hash, digest, listing_hash, modules_hash, notebook_hash, parameters_of
from expstar_utils.files import describe, read_named
from expstar_utils.jobs import Group, Job
from expstar_utils.profiles import Profile, Resources, load_profile
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import ROOT
from expstar_utils.sharing import shard_mark

FOLDER = ROOT / "notebooks" / "plans"
MINI = "mini"  # the job that renders the data set; its marks stand in the data set's folder
TEXTS, KNOWLEDGE, SHIPPED = "data/prompts.yaml", "data/knowledge_base/*.jsonl", "data/models/expstar-tiny/**/*"

SEEING = frozenset({"fps", "max_frames_sft", "max_frames_infer", "frame_size"})  # settings of a profile, by what they are for
ROWS = frozenset({"max_relevant", "max_irrelevant", "joint", "irrelevant_notes", "history_dropout", "closed_book"})
DECIDING = frozenset({"tau", "verdict_threshold", "rank_weight", "second_look_nats", "doubt", "shown", "max_new_tokens",
                      "passages"})
LEARNING = frozenset({"batch_size", "accumulation", "gradient_checkpointing", "compiled", "packed", "augment", "telling_weight",
                      "warmup", "unclear_share", "decision_weight", "save_steps", "processes", "machines", "accelerate",
                      "feature_cache_gib", "sft_epochs", "sft_lr", "warm_start", "warm_start_lr",
                      *(name for name in Profile.model_fields if name.startswith(("caption_", "choice_", "told_")))})
DPO = frozenset({"dpo"})
ALL = frozenset(Profile.model_fields)
NOWHERE = frozenset({"name", "resources", "tracker"})


class Part(NamedTuple):
    """A group of a stage's results.

    results, works: see `jobs.Group`. needs: marks before it, `02.cases` for a group of stage 02. unread: settings of the profile
    that it does not depend on. parameters: the notebook's own that count; None means all. data: patterns of the repository's
    files that are read.
    """

    results: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()
    parameters: tuple[str, ...] | None = None
    data: tuple[str, ...] = ()


def _searched(*results: str) -> Part:
    return Part(results, (), ("02.cases",), LEARNING | DECIDING | DPO, None, (TEXTS, KNOWLEDGE, "data/grader.yaml", SHIPPED))


BUILT = ROWS | LEARNING | DECIDING | DPO
STAGES: dict[str, dict[str, Part]] = {
    "01": {"": Part(("1_pairs/**/*_step_*.json",), (), (), BUILT, None, ("data/annotator.yaml",))},
    "02": {"cases": Part(("2_datasets/cases.jsonl",), (), ("01",), BUILT),
           "baseline": Part(("2_datasets/baseline/*.jsonl", "2_datasets/queries/*.jsonl", "2_datasets/metrics.json"),
                            ("2_datasets/*.csv", "2_datasets/*.png", "2_datasets/problems.json", "2_datasets/sheets/*",
                             "2_datasets/parquet/**/*"), ("01",), BUILT, None, (TEXTS,))},
    "03": {"tower": Part(("3_index/tower.safetensors",), ("3_index/log.jsonl", "3_index/*.pt", "3_index/*.part"), ("02.cases",),
                         ALL - SEEING, ("tower", "tower_steps", "seed", "smoke"), (SHIPPED,)),
           "index": _searched("3_index/manifest.json", "3_index/held_back.json", "3_index/metrics.json"),
           "found": _searched("3_retrieval/*.jsonl"),
           "rows": _searched("2_datasets/expstar/*.jsonl")},
    "04a": {"": Part(("4_sft/adapter/*", "4_sft/tower.safetensors", "4_sft/metrics.json"), ("4_sft/**/*",),
                     ("02.cases", "03.tower", "03.index", "03.found", "03.rows"), DECIDING | ROWS | DPO, None,
                     (TEXTS, KNOWLEDGE, "data/mini/*.yaml", "data/mini/told/*.yaml"))},
    "04b": {"": Part(("4_dpo/rewards.jsonl", "4_dpo/adapter/*", "4_dpo/metrics.json"), ("4_dpo/**/*",),
                     ("02.cases", "03.tower", "03.index", "03.found", "04a"), ROWS, None,
                     (TEXTS, KNOWLEDGE, "data/hazard_words.yaml"))},
    "05": {"": Part((), (), ("02.cases", "03.tower", "03.index"), ROWS | LEARNING | DPO, None,
                    (TEXTS, KNOWLEDGE, SHIPPED, "data/models.yaml"))},
    "06": {"": Part(("6_metrics/metrics.json",), ("6_metrics/*",), (), ROWS | LEARNING | DPO)},
    "07": {"": Part(("7_figures/*.png", "7_figures/*.tex", "7_figures/metrics.json"), ("7_figures/*",),
                    ("02.baseline", "03.index", "04a", "06"), ALL - SEEING, None,
                    ("data/paper/*.csv", "benchmarks/results/*.json"))},
}
TRAINED = {"": "04a", "sft": "04a", "dpo": "04b"}  # notebook 05's adapter -> the stage that trains it
PLACES = {"profile", "run_dir", "out"}  # parameters that do not change a result
NOTEBOOKS = {path.name.split("_")[0]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def stem_of(parameters: Mapping[str, Any]) -> str:
    """Name of notebook 05's file without its ending: split, history, knowledge, and a mark for what else is not the default.

    Args:
        parameters: the notebook's own; those left out are the notebook's. `ablations.row_of` reads the name.
    """
    known = {"split": "test", "history": "free", "knowledge": "adaptive", "verdicts": "each", "language": "en", "blank": False,
             "adapter": "", "row": ""} | parameters
    marks = {known["verdicts"]: known["verdicts"] != "each", known["language"]: known["language"] != "en",
             "blank": known["blank"], known["adapter"]: known["adapter"] in ("sft", "dpo"), known["row"]: bool(known["row"])}
    shown = [mark for mark, there in marks.items() if there]
    return "-".join([known["split"], known["history"], known["knowledge"], *shown])


class RunPlan(BaseModel):
    """One run. shares: another run of the plan, whose data, index and passages are taken (another seed of training)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "tiny"
    seed: int = 42
    shares: str = ""


class Plan(BaseModel):
    """What `python -m expstar_utils.schedule` makes; a YAML file of `notebooks/plans/`.

    runs: by folder. data_root: of the clips. render: whether it is ExpInstruct-Mini, and rendered first; render_words: for its
    builder. raw_root: raw videos for notebook 01; "" leaves 01 out. stages: numbers of the notebooks. rows: name -> parameters
    of notebook 05. shards: number of a notebook ("01" or "05") -> in how many jobs it runs. parameters: number -> the notebook's
    own, for all runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: dict[str, RunPlan] = Field(min_length=1)
    data_root: str = "runs/mini"
    render: bool = True
    render_words: tuple[str, ...] = ()
    raw_root: str = ""
    stages: tuple[str, ...] = ("02", "03", "04a", "05", "06", "07")
    rows: dict[str, dict[str, Any]] = Field({"test": {"split": "test"}}, min_length=1)
    shards: dict[str, int] = {}
    parameters: dict[str, dict[str, Any]] = {}
    smoke: bool = False

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(stages) - set(STAGES)):
            raise ValueError(f"found {unknown}, expected numbers of notebooks out of {list(STAGES)}")
        return stages

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        for name, run in self.runs.items():
            if run.shares and (run.shares not in self.runs or self.runs[run.shares].shares):
                raise ValueError(f"{name} shares {run.shares!r}, expected another run of the plan that shares none")
        if wrong := {k: v for k, v in self.shards.items() if k not in ("01", "05") or v < 1}:
            raise ValueError(f"shards are {wrong}, expected 01 or 05 and a number from 1")
        if unknown := sorted(set(self.parameters) - set(STAGES)):
            raise ValueError(f"parameters of {unknown}, expected numbers of notebooks out of {list(STAGES)}")
        for stage, given in [*self.parameters.items(), *(("05", row) for row in self.rows.values())]:
            if unknown := sorted(given.keys() - parameters_of(NOTEBOOKS[stage])):
                raise ValueError(f"{unknown[0]!r} is no parameter of notebook {stage}, expected some of "
                                 f"{sorted(parameters_of(NOTEBOOKS[stage]))}")
        return self

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """Profile of each run, by its folder."""
        return {name: load_profile(run.profile) for name, run in self.runs.items()}

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job, each after those that it needs."""
        rendered = [self._render()] if self.render else []
        return rendered + [job for stage in STAGES for run in self.runs for job in self._stage(run, stage)]

    @property
    def _stages(self) -> set[str]:
        return {*self.stages, *(["01"] if self.raw_root else [])}

    def _render(self) -> Job:
        words = ("expstar_utils.mini.build", "--out", self.data_root, *self.render_words)
        key = digest([modules_hash(frozenset({"mini.build"})), data_hash(("data/mini/*.yaml",)), words])
        return Job(name=MINI, run=self.data_root, module=words,
                   groups={"": Group(results=("manifest.json", "truth.jsonl"), key=key)})

    def _is_shared(self, run: str, stage: str) -> bool:
        return bool(self.runs[run].shares) and stage in ("01", "02", "03")

    def _stage(self, run: str, stage: str) -> Iterator[Job]:
        if stage not in self._stages or self._is_shared(run, stage):
            return
        count = self.shards.get(stage, 1)
        for row, given in self.rows.items() if stage == "05" else [("", {})]:
            name = "-".join(filter(None, (stage, row)))
            shards = [self._job(run, stage, f"{name}.shard-{n}", given | {"shard": n, "shards": count})
                      for n in range(count if count > 1 else 0)]
            yield from shards
            yield self._job(run, stage, name, given, [str(job.mark("")) for job in shards])

    def _job(self, run: str, stage: str, name: str, given: Mapping[str, Any], shards: Sequence[str] = ()) -> Job:
        own = self.runs[run]
        parameters = {"profile": own.profile, "run_dir": run, "seed": own.seed, "smoke": self.smoke, "data_root": self.data_root,
                      "truth": f"{self.data_root}/truth.jsonl", "pairs_dir": self._pairs(run), **self._more(run, stage), **given}
        groups = {group: self._group(run, stage, part, parameters, shards) for group, part in STAGES[stage].items()}
        links = {folder: str(Path(own.shares) / folder) for folder in ("2_datasets", "3_index", "3_retrieval") if own.shares}
        return Job(name=name, run=run, notebook=str(NOTEBOOKS[stage].relative_to(ROOT)), parameters=parameters, groups=groups,
                   links=links)

    def _more(self, run: str, stage: str) -> dict[str, Any]:
        of_stage = {"01": {"raw_root": self.raw_root, "fail_on_problems": False}, "07": {"out": f"{run}/7_figures", "kept": ""}}
        return of_stage.get(stage, {}) | self.parameters.get(stage, {})

    def _pairs(self, run: str) -> str:
        return f"{run}/1_pairs" if self.raw_root else f"{self.data_root}/pairs"

    def _group(self, run: str, stage: str, part: Part, parameters: Mapping[str, Any], shards: Sequence[str]) -> Group:
        setting = self.profiles[run].model_dump(mode="json", exclude=part.unread | NOWHERE)
        counted = {name: value for name, value in parameters.items() if name in (part.parameters or parameters.keys() - PLACES)}
        raw = listing_hash(Path(self.raw_root)) if stage == "01" else ""
        key = digest([notebook_hash(NOTEBOOKS[stage]), setting, counted, data_hash(part.data), raw])
        results, works = part.results, part.works
        mark = shard_mark(parameters.get("shard", 0), parameters.get("shards", 1))
        if stage == "05":
            stem = f"5_predictions/{stem_of(parameters)}.{mark}"
            results, works = (f"{stem}jsonl", f"{stem}metrics.json"), (f"{stem}problems.json",)
        elif mark:
            results, works = (f"1_pairs/{mark}metrics.json",), (f"1_pairs/{mark}problems.json",)
        needs = (*self._before(run, stage, part, parameters), *shards)
        return Group(results=results, works=works, key=key, needs=needs, stays=stage == "01")

    def _before(self, run: str, stage: str, part: Part, parameters: Mapping[str, Any]) -> Iterator[str]:
        """Marks of the plan's jobs that come before."""
        if self.render:
            yield f"{self.data_root}/jobs/{MINI}.json"
        needs = list(part.needs)
        adapter = parameters.get("adapter", "")
        if stage == "05" and adapter in TRAINED:
            needs.append("04b" if not adapter and "04b" in self._stages else TRAINED[adapter])  # "": the later that is there
        if stage == "06":
            needs += [f"05-{row}" for row in self.rows]
        if stage == "07":  # its tables stand over all seeds
            yield from (f"{other}/jobs/06.json" for other in self.runs if other != run and "06" in self._stages)
        for need in needs:
            number = need.split(".")[0].split("-")[0]
            if number in self._stages:
                home = self.runs[run].shares if self._is_shared(run, number) else run
                yield f"{home}/jobs/{need}.json"

    def resources(self, job: Job) -> Resources:
        """What a job asks for, by its run's profile."""
        if job.name == MINI:
            return Resources(cpus=2, mem_gib=4, minutes=30)
        return self.profiles[job.run].resources.get(job.name.split("-")[0].split(".")[0], Resources())


def load_plan(name: str, **overrides: Any) -> Plan:
    """Plan by name or by path of a YAML file.

    Raises:
        ExpStarError: no such plan, an unknown key, or a value out of range; names the key.
    """
    path, values = read_named("plan", name, FOLDER)
    try:
        return Plan.model_validate(values | overrides)
    except ValidationError as error:
        raise ExpStarError(f"plan {path.name}: {describe(error)}") from None
