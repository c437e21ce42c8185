"""The repository keeps its own rules: READMEs true to the disk, small modules, clean notebooks, one test command."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from expstar_utils.records import SUBJECTS

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README_CN.md")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
           for p in sorted((ROOT / "expstar_utils").rglob("*.py"))}
LAYERS = (  # bottom first; a module imports from its own layer or from those before it
    {"records", "sizes"},
    {"files"},
    {"pictures", "media", "prompts", "profiles", "weights", "runlog", "chat", "sharing", "ledger", "seeds", "trackers", "content",
     "published", "locks"},
    {"clips", "mini", "pairs", "cutting", "datasets", "encoding", "models", "miniatures", "knowledge", "decoding", "rereading",
     "decisions", "listening", "speech", "annotate", "packing", "equations", "adapters", "features",
     "siblings", "differences", "rewording", "phrases", "ratings", "significance", "augmentation", "passages", "sources",
     "shards", "nearest", "ranking", "frozen", "predicted", "compared"},
    {"attention", "efficiency", "scoring", "batches", "captions", "lent_tower", "choices", "told", "unclear", "evaclip", "viclip",
     "tower", "encoders", "vectors", "searches", "retrieval", "grading", "annotators", "completion"},
    {"corpus", "tabular", "tower_training", "connector_training", "training", "inference", "rewards", "metrics"},
    {"reading", "evaluation", "bertscore", "text_metrics", "wordnet", "evaluation_rows", "result_tables", "ablations"},
    {"candidates", "preferences", "served", "second_looks"},
    {"serving", "single_turn", "launching"},
    {"publishing"},
    {"export", "figures", "inspector", "card"},
    {"quickstart", "jobs"},
    {"plans"},
    {"schedule"},
    {"plan_picture"},
)
IMPORT_NAMES = {"beautifulsoup4": "bs4", "faiss-cpu": "faiss", "markdown-it-py": "markdown_it", "open-clip-torch": "open_clip",
                "openai-whisper": "whisper", "opencv-python-headless": "cv2", "pillow": "PIL", "piper-tts": "piper",
                "pyyaml": "yaml", "fonttools": "fontTools",
                "scikit-learn": "sklearn"}
HOSTS = {"github.com", "arxiv.org", "api.openai.com", "www.mediawiki.org", "lmms-engine.readthedocs.io"}  # sources, servers asked
NEEDED_BY = {  # not imported by us, but nothing would run without it
    "accelerate": "transformers' Trainer",
    "gguf": "transformers, to read SmolLM2 from its GGUF",
    "huggingface-hub": "transformers; weights asks it for what the cache holds",
    "ipykernel": "papermill: the kernel that executes notebooks",
    "ipywidgets": "tqdm's and papermill's progress bars in JupyterLab",
    "jupyterlab": "make lab",
    "num2words": "SmolVLM's processor",
    "papermill": "make reproduce",
    "pre-commit": ".pre-commit-config.yaml",
    "python-multipart": "`transformers serve`, a real server for the tests",
    "pytest-xdist": "make test: --numprocesses",
    "pytest-instafail": "pytest: `--instafail` in pyproject.toml",
    "pytest-timeout": "pytest: `timeout` in pyproject.toml",
    "ruff": "make lint",
    "torchvision": "the video processors of SmolVLM and Qwen",
    "voila": "make inspect",
}
PLANNED = {  # extras that only GPU nodes install
    "deepspeed": "ZeRO-2 of the paper profile",
    "snakemake": "batch jobs",
    "snakemake-executor-plugin-slurm": "batch jobs on Slurm",
    "vllm": "serving the paper profile",
}


def text(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf8")


def repository_files() -> list[Path]:
    """Files that are, or could be, committed; outside a checkout all but the generated ones."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        ignored = {line.strip("/") for line in text(".gitignore").splitlines()} | {".git"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not ignored & set(p.relative_to(ROOT).parts)]


# READMEs

def commands(name: str) -> list[str]:
    return re.findall(r"```(?:bash|sh)\n(.*?)```", text(name), re.S)


def table(name: str) -> dict[str, list[str]]:
    """Notebook -> question, input, output, minutes: the rows of the notebook table."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(notebooks/(\w+)\.ipynb\) \| (.+) \|$", text(name), re.M)
    assert all(shown == linked for shown, linked, _ in rows)
    return {shown: cells.split(" | ") for shown, _, cells in rows}


def tree(name: str) -> list[str]:
    """Paths in the layout block; a folder ends with a slash, what is in it stands two blanks further right."""
    [block] = re.findall(r"```text\n(README\.md .*?)```", text(name), re.S)
    paths, folders = [], []
    for line in block.splitlines():
        depth, entry = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth] + [entry]
        paths.append("".join(folders))
    return paths


def header(path: Path) -> list[str]:
    """Question, input, output and minutes on tiny, as the notebook's own first cell says."""
    source = nbformat.read(path, 4).cells[0].source
    question = re.search(r"\*\*Question\.\*\* (.+?)\n\n", source, re.S)[1].replace("\n", " ")
    cells = re.search(r"^\|[-|]+\|\n\| (.+) \|$", source, re.M)[1].split(" | ")
    return [question, *cells[:3]]


def test_readme_begins_with_what_a_newcomer_needs():
    for name in READMES:
        beginning = "\n".join(text(name).splitlines()[:50])
        for needed in ("```bash\nmake demo\nmake test\n```", "<!-- demo-output -->", "<!-- /demo-output -->"):
            assert needed in beginning, f"{name}: {needed!r} is not within the first 50 lines"


def test_both_readmes_hold_the_same_commands():
    assert commands("README.md")
    assert commands("README.md") == commands("README_CN.md")


def test_commands_of_the_readmes_exist():
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.M))
    for name in READMES:
        named = set(re.findall(r"^make (\w+)", "\n".join(commands(name)), re.M)) | set(re.findall(r"`make (\w+)`", text(name)))
        assert named <= targets, f"{name}: Makefile has no {sorted(named - targets)}"
        for path in re.findall(r"(?<!\S)(?:notebooks|expstar_utils)/[\w/]+\.\w+", "\n".join(commands(name))):
            assert (ROOT / path).is_file(), f"{name}: {path} is not there"
        for module in re.findall(r"python -m (expstar_utils[.\w]+)", text(name)):
            assert module in MODULES, f"{name}: {module} is not there"


def test_notebook_table_is_that_of_the_notebooks():
    rows = table("README.md")
    assert list(rows) == [p.stem for p in NOTEBOOKS]
    for path in NOTEBOOKS:
        assert rows[path.stem] == header(path), f"README.md and the first cell of {path.name} differ"


def test_chinese_table_has_the_same_rows():
    english, chinese = table("README.md"), table("README_CN.md")
    assert list(english) == list(chinese)
    for name, (_, *facts) in english.items():
        for ours, theirs in zip(facts, chinese[name][1:], strict=True):
            assert re.findall(r"`[^`]+`", ours) == re.findall(r"`[^`]+`", theirs), f"{name}: other files in the Chinese row"
        minutes = [sorted(re.findall(r"\d+", row[-1])) for row in (facts, chinese[name])]
        assert minutes[0] == minutes[1], f"{name}: other minutes in the Chinese row"


@pytest.mark.parametrize("name", READMES)
def test_layout_is_true_to_the_disk(name):
    named = tree(name)
    generated = {line for line in text(".gitignore").splitlines() if line.endswith("/")}
    missing = [p for p in named if p not in generated and not (ROOT / p).exists()]
    assert not missing, f"{name} shows {missing}, which are not there"
    parts = [p.relative_to(ROOT).parts for p in repository_files()]
    top = {p[0] + ("/" if len(p) > 1 else "") for p in parts if len(p) > 1 or not p[0].startswith(".")}
    inner = {"/".join(p[:2]) + "/" for p in parts if len(p) > 2 and p[0] in ("data", "notebooks", "expstar_utils")}
    left_out = (top | inner) - set(named)
    assert not left_out, f"{name} does not show {sorted(left_out)}"


def test_layouts_are_the_same():
    assert tree("README.md") == tree("README_CN.md")


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text(name)):
        assert (ROOT / target).exists(), f"{name}: {target} is not there"


@pytest.mark.parametrize(("name", "heading"), list(zip(READMES, ("## Not there yet", "## 尚未完成"))))
def test_subjects_without_a_family_are_named_as_missing(name, heading):
    section = text(name).split(heading)[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section)) & set(SUBJECTS)
    missing = set(SUBJECTS) - {p.stem for p in (ROOT / "data" / "mini").glob("*.yaml")}
    assert named == missing, f"{name}, {heading}: subjects {sorted(named ^ missing)}"
    assert set(SUBJECTS) <= set(re.findall(r"`(\w+)`", text(name)))


# Dependencies

def distributions() -> tuple[set[str], set[str]]:
    """Names in pyproject.toml: those always installed, those of extras."""
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    base, optional = ({re.match(r"[\w.-]+", line)[0] for line in lines} for lines in (project["dependencies"], extras))
    return base, optional


def code_cells(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


def imported_names() -> set[str]:
    """First part of everything that modules, notebooks, tests and benchmarks import."""
    scripts = [p for folder in ("tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    sources = [p.read_text(encoding="utf8") for p in [*MODULES.values(), *scripts]]
    found = set()
    for node in (n for s in sources + [c for p in NOTEBOOKS for c in code_cells(p)] for n in ast.walk(ast.parse(s))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_every_dependency_is_used():
    base, optional = distributions()
    assert set(NEEDED_BY) <= base | optional, "an exception names what pyproject.toml does not ask for"
    assert set(PLANNED) <= optional - base
    imported = imported_names()
    unused = {d for d in (base | optional) - set(NEEDED_BY) - set(PLANNED)
              if IMPORT_NAMES.get(d, d.replace("-", "_")) not in imported}
    assert not unused, f"nothing imports {sorted(unused)}: use it or drop it from pyproject.toml"


# Modules

def imports_of(name: str) -> set[str]:
    """Modules of ours that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: write imports from the root, not relative ones"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {w if w in MODULES else node.module for w in whole}
    return found & set(MODULES)


def layer(name: str) -> int:
    unit = name.split(".")[1] if "." in name else ""
    places = [i for i, units in enumerate(LAYERS) if unit in units]
    assert places or not unit, f"{name} has no place in LAYERS: say what it may import"
    return places[0] if places else 0


@pytest.mark.parametrize("name", MODULES)
def test_module_is_one_short_idea(name):
    source = MODULES[name].read_text(encoding="utf8")
    lines = len(source.splitlines())
    assert lines < 300, f"{name} has {lines} lines: split it by its ideas"
    assert source.startswith('"""'), f"{name}: its first line must say which one idea it is"
    assert len((ast.get_docstring(ast.parse(source)) or "").split("\n")[0]) > 10


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downward(name):
    upward = {other for other in imports_of(name) if layer(other) > layer(name)}
    assert not upward, f"{name} imports {sorted(upward)} from above"


def test_imports_have_no_cycles():
    try:
        graphlib.TopologicalSorter({name: imports_of(name) for name in MODULES}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")


def test_what_trains_nothing_starts_without_torch():
    """Jobs of 01, 06 and 07, the scheduler and the inspector: torch would cost each of them five seconds."""
    names = ["ablations", "annotators", "completion", "evaluation", "figures.examples", "figures.gallery", "inspector", "jobs",
             "ledger", "metrics", "schedule", "seeds"]
    wanted = ", ".join(f"expstar_utils.{name}" for name in names)
    code = f"import sys, {wanted}\nprint({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Notebooks

@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def test_notebook_has_one_cell_of_literal_parameters(notebook):
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is next(c for c in notebook.cells if c.cell_type == "code"), "parameters come before other code"
    values = {}
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign), f"not an assignment: {ast.unparse(statement)}"
        [target] = statement.targets
        values[target.id] = ast.literal_eval(statement.value)
    assert {"profile", "run_dir", "seed", "smoke"} <= set(values)


def test_notebook_is_committed_without_outputs(notebook):
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        assert not cell.outputs, f"outputs under {cell.source[:60]!r}: clear them"
        assert cell.execution_count is None


def test_notebook_changes_nothing_outside_its_run(notebook):
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        found = re.findall(r"^\s*[!%].*|\bpip install\b|\bsys\.path\b|\b\w*login\b|\bpush_to_hub\b", cell.source, re.M)
        assert not found, f"{found} in a notebook"


def test_notebook_cells_parse_and_are_short(notebook):
    sources = [c.source for c in notebook.cells if c.cell_type == "code"]
    lengths = [len(s.splitlines()) for s in sources]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 8
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"def {node.name} belongs in a module"


# Commands and hygiene

def test_ci_runs_the_one_test_command():
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text(encoding="utf8").splitlines() if line.strip()]
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert any(line.startswith("export CI=true") for line in lines)
    assert lines[-1] == "make test", "the last lines printed must be the test runner's own"
    for name in READMES:
        assert "make test\n" in commands(name), f"{name}: the test command is not stated as `make test`"


def test_ruff_finds_nothing():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."],
                           cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_file_names_a_machine():
    paths = re.compile(r"(?<![\w.~$}/-])/(?:work|root|home|Users)/")
    hosts = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:org|com|net|io|dev|ai|edu|gov|cn)(?=[/:])", re.I)
    for path in repository_files():
        try:
            content = path.read_text(encoding="utf8")
        except UnicodeDecodeError:
            continue
        if found := paths.search(content):
            pytest.fail(f"{path.relative_to(ROOT)} names {content[found.start():found.end() + 30]!r}")
        others = sorted(set(map(str.lower, hosts.findall(content))) - HOSTS)
        assert not others, f"{path.relative_to(ROOT)} names {others}; a source that is cited is added to HOSTS"
