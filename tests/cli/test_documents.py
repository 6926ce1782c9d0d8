"""README and docs do what they show: each block of a page runs, or its options are checked."""

import json
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner
from starlette.testclient import TestClient

import spd_deploy
from docs.command_line import on_page_markdown
from exporters.export import artefact_from_checkpoint
from serve.app import create_app
from serve.model_plan import RuntimeSettings, models_from
from serve.settings import ServeSettings
from serve.shadow import shadow_from
from spd_deploy.cli.main import cli
from spd_deploy.cli.options.model_options import named_paths
from spd_deploy.domain import paired_answers
from spd_deploy.domain.checkpoint import encoder_in
from spd_deploy.domain.latency_table import write_latency_table
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.hub import url_copy
from spd_deploy.scale.serve import DeploymentSettings
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from tests.cli.documents import README, ROOT, Block, blocks_of, code_spans, name_of, pages
from tests.cli.user_folder import user_folder
from tests.tiny import tiny_checkpoint
from tests.train.latency import latency_table

LANGUAGES = ("sh", "python", "json", "toml", "yaml", "text")
# What keeps a command short on a tiny model; of an option that is given twice, the last counts.
SHORTER = {
    "train": ("--epochs", "0.2", "--teacher-epochs", "0.2", "--threads", "1"),
    "prune": ("--calibration-tokens", "256", "--mask-updates", "1"),
    "distil": ("--epochs", "1", "--calibration-tokens", "256", "--threads", "1"),
    "bench": ("--rounds", "2", "--seconds", "0.01", "--seq", "16,32"),
    "map": ("--model", "MINILM_FOLDER", "--rounds", "2", "--seconds", "0.001"),
    "sweep": ("--dry-run",),
}
# The same for functions of the Python API; what a page gives itself counts.
SHORTER_CALLS: dict[str, dict[str, object]] = {
    "train": {"epochs": 0.2, "teacher_epochs": 0.2, "threads": 1},
    "prune": {"calibration_tokens": 256, "mask_updates": 1},
    "bench": {"rounds": 2, "seconds": 0.01, "threads": 1},
}
READY_WITHIN_S = 60.0
# A tiny model is mostly overhead, so that no pruning makes it twice as fast: a made table says so.
LATENCY_TABLE = "made-latency.json"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take as given, with a trained and an exported model in it."""
    folder = user_folder(tmp_path_factory.mktemp("prepared"))
    train = f"train --task mrpc --data {folder}/GLUE/MRPC --model {folder}/MINILM_FOLDER"
    for command in (
        f"{train} --pattern block:64x1 --sparsity 0.75 --output {folder}/runs/mrpc",
        f"export {folder}/runs/mrpc --output {folder}/artefacts/mrpc",
    ):
        words = shlex.split(command)
        result = CliRunner().invoke(cli, [*words, *SHORTER.get(words[0], ())])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    for task in ("sst2", "stsb"):  # of single texts, and of pairs with one score
        checkpoint = tiny_checkpoint(folder / "runs" / task, task=task)
        artefact_from_checkpoint(checkpoint, folder / "artefacts" / task)
    write_latency_table(folder / LATENCY_TABLE, latency_table(**sizes_of(folder)))
    return folder


def sizes_of(folder: Path) -> dict[str, int]:
    """The sizes of the user's model."""
    encoder = encoder_in(folder / "MINILM_FOLDER")
    return {
        "layers": encoder.layers,
        "hidden": encoder.hidden,
        "heads": encoder.heads,
        "intermediate": encoder.intermediate,
    }


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one page: a copy, in which this process works, with short Python calls."""
    for name, settings in SHORTER_CALLS.items():
        monkeypatch.setattr(spd_deploy, name, partial(getattr(spd_deploy, name), **settings))
    here = tmp_path / "user"
    shutil.copytree(prepared, here)
    (here / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setattr(paired_answers, "_RESAMPLES", 20)
    monkeypatch.chdir(here)
    monkeypatch.setattr(url_copy, "cache_folder", lambda: tmp_path / "cache")
    return here


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_of_a_page_does_what_it_should(page: Path, folder: Path) -> None:
    """Commands succeed in the order in which they stand, Python runs, JSON, TOML, YAML parse."""
    served: Sequence[str] = [str(folder / "artefacts" / "mrpc")]
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block.where}: a block needs one of {LANGUAGES}"
        match block.language:
            case "sh":
                served = run_shell(block, served)
            case "python" if block.reason is None:
                exec(compile(block.text, block.where, "exec"), {"__name__": "page"})
            case "python":
                compile(block.text, block.where, "exec")
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "yaml":
                for found in yaml.safe_load_all(block.text):
                    check_deployments(found)
            case "text":
                pass
            case _:
                raise AssertionError(block.language)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_options_in_prose_exist(page: Path) -> None:
    """Inline code that begins with a command of ours, or with an option, names one that exists."""
    options = {name for command in verbs().values() for name in names_of(command)}
    for span in code_spans(page):
        if re.match(r"spd [a-z]", span):
            check_options(span.split()[1:], name_of(page))
        elif re.match(r"--[a-z]", span):
            assert re.split(r"[ =]", span)[0] in options, f"{name_of(page)}: {span}"


def test_every_block_that_is_not_run_says_why() -> None:
    """The reason of a marked block names what is missing here, and few blocks are marked."""
    marked = [block for page in pages() for block in blocks_of(page) if block.reason is not None]
    assert all(len(block.reason or "") > 10 for block in marked)
    runnable = [b for page in pages() for b in blocks_of(page) if b.language in ("sh", "python")]
    assert len(marked) < len(runnable) / 2
    assert not any("import spd_deploy" in block.text for block in marked)


def test_the_page_of_commands_has_every_option() -> None:
    """The generated page has a section for each command, and in it a row for each option."""
    page = on_page_markdown("<!-- commands -->")

    sections = dict(part.split("\n", 1) for part in page.split("## spd ")[1:])

    assert set(sections) == set(verbs())
    for name, command in verbs().items():
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        missing = [
            o.opts[-1] for o in options if not re.search(rf"\| `.*{o.opts[-1]}\b", sections[name])
        ]
        assert not missing, name
        assert f"spd {name} " in sections[name]


def test_the_picture_of_readme_shows_what_the_quickstart_printed() -> None:
    """Each speed-up in the block of README stands in the picture above it, with its interval."""
    text = README.read_text(encoding="utf-8")
    (line,) = re.findall(r"^speed-up .*$", text, re.MULTILINE)
    picture = (ROOT / "docs/images/quickstart-speedup.svg").read_text(encoding="utf-8")

    shown = re.findall(r"[\d.]+x \[[\d.]+, [\d.]+\]", line)

    assert len(shown) == 3 and all(f">{one}<" in picture for one in shown)


def test_readme_stays_short() -> None:
    """README has 150 lines at most; what is longer belongs into docs."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def run_shell(block: Block, served: Sequence[str]) -> Sequence[str]:
    """Run the commands of a shell block, or check them where the block is marked.

    Args:
        block: one block of a page.
        served: the arguments of the ``spd serve`` that ``curl`` speaks to.

    Returns:
        Those of the one that it speaks to from here on.
    """
    for command in block.commands:
        words = shlex.split(command)
        where = f"{block.where}: {command}"
        match words:
            case ["spd", verb, *rest]:
                check_options([verb, *rest], where)
                if verb == "serve":
                    served = rest
                elif verb != "quickstart" and block.reason is None:  # which has tests of its own
                    run_command([verb, *rest], where)
            case ["curl", *rest]:
                ask(served, rest, where)
            case ["make", *targets]:
                makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
                assert all(f"\n{target}:" in makefile for target in targets), where
            case ["pip", "install", *packages]:
                check_extras(packages, where)
            case ["python", "-m", module, *rest] if module.startswith("benchmarks."):
                check_script(module, rest, where)
            case ["torchrun" | "accelerate", *rest] if "spd" in rest:
                check_options(rest[rest.index("spd") + 1 :], where)
            case ["srun", "torchrun", *rest]:
                assert block.reason is not None, where
                words = [word for word in rest[rest.index("spd") + 1 :] if word != "$@"]
                check_options(words, where)
            case [assignment, *_] if re.match(r"[A-Z]+=", assignment):
                assert block.reason is not None, where
            case ["docker" | "kubectl" | "helm", *rest] | ["env", _, "docker", *rest]:
                assert block.reason is not None, where
                assert all((ROOT / word).exists() for word in rest if "deploy/" in word), where
            case ["serve", "run", "spd_deploy.scale.serve:app", *arguments]:
                assert block.reason is not None, where
                DeploymentSettings.parse(dict(one.split("=", 1) for one in arguments))
            case ["ray", "start", *_]:
                assert block.reason is not None, where
            case ["mkdir" | "cp" | "mv", *_]:
                subprocess.run(words, check=True)
            case ["git", "clone", *_] | ["cd", _]:
                pass
            case ["hf", "auth", "login"]:
                assert block.reason is not None, where
            case _:
                raise AssertionError(f"{where}: no test knows this command")
    return served


def check_deployments(document: object) -> None:
    """Where a document is a configuration of Ray Serve, its arguments make deployments."""
    for one in document.get("applications", ()) if isinstance(document, dict) else ():
        assert one["import_path"] == "spd_deploy.scale.serve:app"
        DeploymentSettings.parse(one["args"])


def run_command(words: Sequence[str], where: str) -> None:
    """Run one command of ours, shortened, in this process."""
    shorter = SHORTER.get(words[0], ())
    if words[0] == "train" and {"--pattern", "--speedup", "--max-drop"} & set(words):
        shorter = (*shorter, "--calibration-tokens", "64", "--mask-updates", "1")
    if "--keep-masks" in words:  # there is no student, whose length --epochs is
        shorter = shorter[shorter.index("--teacher-epochs") :]
    words = [*words, *shorter]
    for option, value in (
        ("--seq", "16,32"),
        ("--max-tokens", "32"),
        ("--at", "2x16"),
        ("--keep-layers", "1"),  # there are two
    ):  # there are 64 positions
        if option in words:
            at = words.index(option) + 1
            words[at] = "32" if words[0] == "inspect" else value
    if (words[0] == "export" and "--tune" in words) or "--measure" in words:
        words += ["--seconds", "0.02"]
    if words[0] == "map" and not {"--pattern", "--structured"} & set(
        words
    ):  # 128 does not divide the tiny sizes
        words += ["--pattern", "block:64x1"]
    if words[0] in ("train", "prune") and {"--speedup", "--max-drop"} & set(words):
        words += ["--latency-table", LATENCY_TABLE, "--any-machine"]
    if "int8" in words:  # a model that has hardly learned may lose much of little
        words += ["--max-drop", "100"]
    if "--output" in words and "--resume" not in words:
        remove(Path(words[words.index("--output") + 1]))
    result = CliRunner().invoke(cli, words)
    if words[0] == "build" and (fault := engine_fault()) is not None:
        assert result.exit_code == 1 and fault.split(" (")[0] in result.stderr, where
    elif "cuda" in words and not torch.cuda.is_available() and words[0] != "sweep":
        assert result.exit_code == 1 and "GPU" in result.output, f"{where}\n{result.output}"
    else:
        assert result.exit_code == 0, f"{where}\n{result.output}\n{result.exception!r}"


def remove(path: Path) -> None:
    """What an earlier page, or the preparation, wrote under this name."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def ask(served: Sequence[str], words: Sequence[str], where: str) -> None:
    """Send what ``curl`` would send to such a server; it must answer with 200."""
    (url,) = (word for word in words if word.startswith("http://127.0.0.1:8000/"))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    data = next((words[i + 1] for i, word in enumerate(words) if word == "-d"), None)
    given = verbs()["serve"].make_context("serve", list(served)).params
    shadows = [shadow_from(one) for one in given["shadow"]]
    runtime = RuntimeSettings(choice=RUNTIME_CHOICES["auto"], threads=1)
    plan = models_from(named_paths(given["artefact"]), given["model_repository"], shadows, runtime)
    settings = ServeSettings(model_control=given["model_control"])
    app = create_app(plan.sources, settings, repository=plan.repository, shadows=shadows)
    with TestClient(app) as client:
        deadline = time.monotonic() + READY_WITHIN_S
        while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        path = url.removeprefix("http://127.0.0.1:8000")
        found = (
            client.get(path) if data is None else client.post(path, content=data, headers=headers)
        )
    assert found.status_code == 200, f"{where}\n{found.text}"


def verbs() -> dict[str, click.Command]:
    """The commands of the command line by name."""
    assert isinstance(cli, click.Group)
    return dict(cli.commands)


def names_of(command: click.Command) -> Iterator[str]:
    """All names of a command's options."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    yield from ("--help", "--version")


def check_options(words: Sequence[str], where: str) -> None:
    """The command has these options, and where an option is a choice, these values."""
    assert words[0] in verbs(), f"{where}: no command {words[0]}"
    command = verbs()[words[0]]
    choices = {
        name: parameter.type.choices
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
        for name in parameter.opts
    }
    known = set(names_of(command))
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            assert word in known, f"{where}: spd {words[0]} has no {word}"
            if word in choices and value and not value.isupper():
                assert value in choices[word], f"{where}: {word} takes {choices[word]}"


def check_extras(packages: Sequence[str], where: str) -> None:
    """The extras that are named are ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package in packages:
        if found := re.fullmatch(r"spd-deploy\[(.+)\]", package):
            assert set(found[1].split(",")) <= set(project["optional-dependencies"]), where


def check_script(module: str, words: Sequence[str], where: str) -> None:
    """The script exists, and so do its options."""
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{where}: {module} has no {word}"
