"""The commands of README and docs, as a newcomer types them, and the files that they name.

What takes a GPU, minutes or somebody's caches is run as far as that goes without: ``--dry-run`` says the same words.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.present import present
from tests.simulated import simulated_study
from tuner.config import SecretsConfig
from tuner.export.profile import profile_of
from tuner.importer import sources
from tuner.importer.baseline import served
from tuner.load.plan import plan
from tuner.load.prompts import TokenCalibration
from tuner.load.workload import Workload
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.space import SearchSpace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
LINKING = {**PAGES, ROOT / "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text("utf-8")}
BIN = Path(sys.executable).parent


def commands():
    """Every command line, continued lines joined, comments left out; the README's overview names no arguments."""
    joined = "\n".join([README.split("## Commands")[0], *list(PAGES.values())[1:]]).replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.startswith("    ")]
    told = [re.sub(r"(\s{2,}#? | # ).*$", "", line) for line in lines]
    known = re.compile(r"(?:[A-Z_]+=\S+ )?(?:tuner|make|docker|jupyter|pip) ")
    return list(dict.fromkeys(" ".join(line.split()) for line in told if known.match(line)))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a finished study, and with a group of one's own as the page on concepts writes it."""
    folder = tmp_path_factory.mktemp("readme")
    winner = profile_of(simulated_study(folder / "studies", 6))
    assert winner is not None
    (folder / "studies" / "demo" / "profile.yaml").write_text(winner.to_yaml())
    own = PAGES[ROOT / "docs" / "concepts.md"].split("# mine/model/my-glm.yaml")[1].split("\n\n")[0]
    (folder / "mine" / "model").mkdir(parents=True)
    (folder / "mine" / "model" / "my-glm.yaml").write_text(re.sub(r"^ {4}", "", own, flags=re.MULTILINE))
    (folder / "LOG").write_text("INFO vLLM API server version 0.15.0\n")
    (folder / "compose.yaml").write_text(example("services:"))
    return folder


def example(first):
    """An example of the page on importing, by how it begins."""
    page = PAGES[ROOT / "docs" / "import.md"]
    begin = page.index(f"    {first}")
    return textwrap.dedent(page[begin:].split("\n\n")[0]) + "\n"


def run(here, words, *more):
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run([*words, *more], cwd=here, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def of(prefix):
    chosen = [command for command in commands() if command.startswith(prefix)]
    assert chosen, f"no page has a command {prefix!r} any more"
    return chosen


HANDLED = ("tuner study", "tuner profile", "tuner doctor", "tuner clean", "make ", "TUNER_TEST_DOCKER=")
ELSEWHERE = {
    "docker compose -f studies/glm-flash/compose.yaml": "tests/export/test_compose.py",
    "TUNER_STUDY=$PWD/studies/demo jupyter": "tests/test_notebooks.py",
    "pip install jupyterlab": "tests/test_notebooks.py",
    "tuner bench run": "tests/test_bench.py",
    "tuner bench compare": "tests/test_bench_compare.py",
    "tuner bench export": "tests/test_bench_formats.py",
    "tuner workload show": "tests/test_workload_show.py",
    "tuner workload learn": "tests/test_workload_learn.py",
    "tuner compare": "tests/contest/test_contest.py",
    "tuner quality": "tests/test_quality.py",
    "tuner watch": "tests/watch/test_watch.py",
}


def test_every_command_is_run_by_a_test():
    for command in commands():
        elsewhere = next((path for prefix, path in ELSEWHERE.items() if command.startswith(prefix)), None)
        assert command.startswith(HANDLED) or (ROOT / str(elsewhere)).exists(), command


@pytest.mark.parametrize("command", of("tuner study start"))
def test_studies_can_be_planned(here, command):
    words = [word for word in shlex.split(command) if word != "--dry-run"]
    done = run(here, words, "--dry-run")
    assert "launches" in done.stdout, done.stderr
    # what the newcomer has and this machine has not: vLLM, Docker, GPUs
    missing = (
        "vllm is not there",
        "llama-server is not there",
        "no Docker engine",
        "Docker",
        "there is no GPU",
        "is held by",
    )
    assert done.returncode == 0 or any(said in done.stderr for said in missing), done.stderr


@pytest.mark.parametrize("command", of("tuner profile import"))
def test_a_deployment_is_imported_as_the_page_shows(here, command):
    done = run(here, shlex.split(command))
    assert (done.returncode, done.stdout) == (0, example("service                    qwen"))


@pytest.fixture
def deployed(here, tmp_path):
    """A folder with the example's compose file, and with the studies of it and of the demo and their winners."""
    shutil.copy(here / "compose.yaml", tmp_path)
    found = served(sources.read([tmp_path / "compose.yaml"], None, {}))
    demo = profile_of(Outcome.of(StudyFolder(here / "studies" / "demo")))
    assert demo is not None
    args = {**found.args, "max_model_len": 40960, "max_num_seqs": 128, "compilation_config": {"compile_sizes": [1, 2]}}
    own = {"model": found.model, "args": args, "env": {**found.env, "OMP_NUM_THREADS": "8"}, "deployed": None}
    for name, profile in (("demo", demo), ("qwen", demo.model_copy(update=own))):
        (tmp_path / "studies" / name).mkdir(parents=True)
        shutil.copy(here / "studies" / "demo" / "config.yaml", tmp_path / "studies" / name)
        (tmp_path / "studies" / name / "profile.yaml").write_text(profile.to_yaml())
    return tmp_path


@pytest.mark.parametrize("command", of("tuner profile write compose.yaml"))
def test_a_winner_is_written_as_the_page_shows(deployed, command):
    page = PAGES[ROOT / "docs" / "write-back.md"]
    block = page[page.index("    --- compose.yaml") :].split("\n\nThe winner is taken")[0]
    done = run(deployed, shlex.split(command))
    assert (done.returncode, done.stdout.rstrip()) == (0, textwrap.dedent(block)), done.stderr


@pytest.mark.parametrize("command", [*of("tuner profile write --study"), *of("tuner profile show")])
def test_a_winner_is_shown_in_other_forms(deployed, command):
    done = run(deployed, shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert "QuantTrio/GLM-4.7-Flash-AWQ" in done.stdout


SHOWN = [command for name in ("list", "status", "report", "export", "compare") for command in of(f"tuner study {name}")]


@pytest.mark.parametrize("command", SHOWN)
def test_results_are_shown(here, command):
    if "parquet" in command:
        pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[parquet]'")
    done = run(here, shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert done.stdout or "-o" in command


@pytest.mark.parametrize("command", of("tuner study dashboard"))
def test_the_dashboard_says_where_it_listens(here, command):
    words = [str(BIN / "tuner"), *shlex.split(command)[1:], "--no-browser"]
    with subprocess.Popen(words, cwd=here, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert "http://127.0.0.1:" in present(server.stdout).readline()
        finally:
            server.send_signal(signal.SIGINT)


@pytest.mark.parametrize("command", [*of("tuner doctor"), *of("tuner clean")])
def test_the_machine_is_looked_at_and_left_alone(here, command):
    more = ["--dry-run"] if "clean" in command else []
    done = run(here, shlex.split(command), *more)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout or "no Docker engine" in done.stderr


@pytest.mark.parametrize("command", of("make "))
def test_make_has_these_targets(command):
    done = subprocess.run(["make", "-n", shlex.split(command)[1]], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


GROUPS = ("study", "profile", "bench", "sim", "workload", "quality")


def overview():
    """The commands of the overview, without arguments."""
    for line in README.split("## Commands")[1].splitlines():
        if line.startswith("    tuner "):
            _, group, *rest = re.split(r"\s{2,}", line.strip())[0].split()
            names = [word for word in rest if re.fullmatch("[a-z]+", word)]
            yield from (([group, name] for name in names) if group in GROUPS else ([group],))


@pytest.mark.parametrize("words", list(overview()), ids=" ".join)
def test_the_overview_names_commands_that_exist(here, words):
    assert run(here, ["tuner", *words, "--help"]).returncode == 0


def block(page, first):
    """The YAML block of a page that begins with this line."""
    text = PAGES[ROOT / "docs" / page].split(f"    {first}\n", 1)[1].split("\n\n")[0]
    return yaml.safe_load(textwrap.dedent(f"    {first}\n{text}"))


def test_the_search_space_that_is_shown_is_valid():
    space = SearchSpace.model_validate(block("concepts.md", "params:"))
    assert space.params["max_num_seqs"].accepts(16)


def shapes():
    """Every YAML block of the page on workloads."""
    text = PAGES[ROOT / "docs" / "workloads.md"]
    blocks = re.findall(r"(?:^    (?!tuner |\{).*\n)+", text, flags=re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


@pytest.mark.parametrize("shape", shapes())
def test_the_shapes_of_traffic_that_are_shown_are_valid(shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lengths.txt").write_text("100\n200\n300\n400\n")
    shutil.copy(ROOT / "tests" / "data" / "mooncake-sample.jsonl", tmp_path / "trace.jsonl")
    workload = Workload.model_validate({"name": "shown", **yaml.safe_load(shape)})
    calibration = TokenCalibration(tokens_per_word=1.25, overhead_tokens=10)
    made = plan(workload, seed=1, context_tokens=None, kv_tokens=None, calibration=calibration)
    assert made.stages
    assert made.skipped == ()


def test_the_secrets_that_are_shown_are_valid():
    assert SecretsConfig.model_validate(block("secrets.md", "secrets:")["secrets"]).download


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for page in PAGES.values() for extra in re.findall(r"-e '\.\[(\w+)\]'", page)}
    assert named
    assert named <= set(extras)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_files_and_pages_that_are_named_exist(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([\w./-]+)(?:#([\w-]+))?\)", LINKING[page]):
        linked = page.parent / path
        assert linked.exists(), path
        assert not anchor or anchor in anchors(linked), anchor
    for path in re.findall(r"`((?:conf|dockerfiles|notebooks|studies/recorded|tests|tuner)/[\w./-]*)`", LINKING[page]):
        assert (ROOT / path).exists() or "NAME" in path, path


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
