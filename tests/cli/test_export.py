"""``spd export`` on the command line: what it writes, what it says, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from exporters.autotune.select import choose_lowerings, force_lowering
from exporters.autotune.tuning import TUNING_FILE, TimedProduct, Tuning, read_tuning
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.lowering.candidates import candidates_of
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Manifest, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint
from spd_deploy.domain.documents import with_own_hash
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.patterns import Block, parse_pattern
from tests.tiny import tiny_checkpoint, with_weights


def export(*words: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, words)])


def test_the_summary_says_what_was_made(tmp_path: Path, block_checkpoint: Checkpoint) -> None:
    """Pattern, lowerings, parity and the next command stand on standard output."""
    result = export(block_checkpoint.folder, "--output", tmp_path / "a")

    assert result.exit_code == 0
    assert "block:16x1: verified on the stored weights" in result.stdout
    assert f"spd inspect {tmp_path / 'a'}" in result.stdout
    counts = [line for line in result.stdout.splitlines() if line.startswith("matrices")]
    assert sum(int(word) for word in counts[0].split() if word.isdigit()) == 12


def test_json_is_the_manifest(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """With --json a program reads on standard output what the manifest holds."""
    result = export(dense_checkpoint.folder, "--output", tmp_path / "a", "--json")

    value = json.loads(result.stdout)
    manifest = open_artefact(tmp_path / "a").manifest
    assert value.pop("artefact") == str(tmp_path / "a")
    assert value == json.loads(json.dumps(manifest.to_json()))


def test_overwrite_replaces_an_artefact(
    tmp_path: Path, dense_checkpoint: Checkpoint, block_checkpoint: Checkpoint
) -> None:
    """A second export needs --overwrite, and then the folder holds the second one alone."""
    first = export(dense_checkpoint.folder, "--output", tmp_path / "a")
    refused = export(block_checkpoint.folder, "--output", tmp_path / "a")
    second = export(block_checkpoint.folder, "--output", tmp_path / "a", "--overwrite")

    assert [first.exit_code, refused.exit_code, second.exit_code] == [0, 1, 0]
    assert "--overwrite" in refused.stderr
    assert open_artefact(tmp_path / "a").manifest.pattern == "block:16x1"


def test_a_detected_pattern_is_told(tmp_path: Path) -> None:
    """Export of a folder without spd.json says on standard error what it took the zeros for."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("structured"))
    (checkpoint.folder / SPD_FILE).unlink()

    result = export(checkpoint.folder, "--output", tmp_path / "a")

    assert result.exit_code == 0
    assert "structured detected, not declared" in " ".join(result.stderr.split())
    assert "12 compact" in result.stdout


QUICK = ("--batch", "1,2", "--seq", "8", "--threads", "1", "--seconds", "0.003")


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, block_checkpoint: Checkpoint
) -> tuple[Path, Result]:
    """An export that measures, and what the command gave."""
    folder = tmp_path_factory.mktemp("tuned") / "a"
    return folder, export(block_checkpoint.folder, "--output", folder, "--tune", *QUICK)


def test_a_tuned_export_holds_what_was_measured(
    tuned: tuple[Path, Result], block_checkpoint: Checkpoint
) -> None:
    """The manifest has the times of each matrix and of the network, and the choices go by them."""
    folder, result = tuned
    assert result.exit_code == 0, result.output
    manifest = open_artefact(folder).manifest
    tuning = read_tuning(folder / TUNING_FILE)

    assert manifest.measured_on == tuning.where
    assert manifest.measured_on.endswith(f", 1 thread, {tuning.runtime}")
    assert [(one.batch, one.seq) for one in manifest.measured] == [(1, 8), (2, 8)]
    assert result.stderr.count("doubt: ") == len(tuning.doubts)
    weights = read_weights(block_checkpoint)
    candidates, chosen = (
        candidates_of(block_checkpoint, weights),
        choose_lowerings(block_checkpoint, weights, tuning),
    )
    for row in manifest.matrices:
        times = tuning.times_of(TimedProduct.of(candidates[row.name], last=1))
        assert (row.lowering, row.measured) == (
            chosen[row.name].lowering.name,
            chosen[row.name].measured,
        )
        assert [one.dense_s for one in row.measured] == list(times.medians("dense"))
        assert f"{times.gain:.1f}x" in row.reason


def test_a_tuning_makes_the_same_artefact_again(
    tmp_path: Path, tuned: tuple[Path, Result], block_checkpoint: Checkpoint
) -> None:
    """Exporting by an earlier tuning gives its lowerings and times; no runtime is timed."""
    folder, _ = tuned
    output = ("--output", tmp_path / "b")

    result = export(block_checkpoint.folder, *output, "--tuning", folder / TUNING_FILE)

    assert result.exit_code == 0, result.output
    first, again = (open_artefact(place).manifest for place in (folder, tmp_path / "b"))
    assert again.matrices == first.matrices
    assert again.measured == first.measured
    assert (len(first.runtime_timings), len(again.runtime_timings)) == (2, 0)


def test_an_export_without_tuning_has_no_times(
    tmp_path: Path, block_checkpoint: Checkpoint
) -> None:
    """Nothing is said to be measured that was not, and manifests that lack the fields are read."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path / "a")
    value = json.loads((tmp_path / "a" / "manifest.json").read_text())
    older = {name: part for name, part in value.items() if not name.startswith("measured")}
    older["matrices"] = [
        {name: part for name, part in row.items() if name != "measured"}
        for row in value["matrices"]
    ]

    assert artefact.manifest.measured == ()
    assert artefact.manifest.measured_on is None
    assert Manifest.from_json(with_own_hash(older)) == artefact.manifest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "1"), "--batch needs --tune or --format trt"),
        (("--threads", "1"), "needs --tune"),
        (("--tune", "--tuning", "x.json"), "give one of the two"),
        (("--tune", "--lowering", "dense"), "--tune chooses lowerings and --lowering forces one"),
        (("--tuning", "x.json", "--lowering", "dense"), "--tuning chooses lowerings"),
        (("--tune", "--seq", "65"), "positions for 64 tokens"),
        (("--tuning", "nowhere.json"), "cannot read nowhere.json"),
    ],
    ids=str,
)
def test_tuning_that_cannot_be_is_refused(
    tmp_path: Path, block_checkpoint: Checkpoint, options: tuple[str, ...], message: str
) -> None:
    """Options without their verb, too long texts and missing files are errors before a file is."""
    result = export(block_checkpoint.folder, "--output", tmp_path / "a", *options)

    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_lowering_can_be_forced(tmp_path: Path, block_checkpoint: Checkpoint) -> None:
    """Asked to be dense a block-sparse checkpoint is, and says who wanted it."""
    result = export(block_checkpoint.folder, "--output", tmp_path / "a", "--lowering", "dense")

    assert result.exit_code == 0, result.output
    rows = open_artefact(tmp_path / "a").manifest.matrices
    assert {row.lowering for row in rows} == {"dense"}
    assert {row.reason for row in rows} == {"dense was forced with --lowering"}


@pytest.mark.parametrize("lowering", ["gathered", "compact"])
def test_a_matrix_that_cannot_have_the_forced_lowering_says_why(
    tmp_path: Path, lowering: LoweringName
) -> None:
    """Matrices without blocks, or with all their neurons, are named as such and fall back aloud."""
    feed_forward = "bert.encoder.layer.0.{}.dense"
    made = tiny_checkpoint(
        tmp_path / "c",
        pattern=Block(rows=16, columns=1, sparsity=0.75),
        goals={"bert.encoder.layer.1.output.dense": 0.0},
    )
    weights = load_file(made.weights)
    weights[feed_forward.format("intermediate") + ".weight"][:64] = 0
    weights[feed_forward.format("output") + ".weight"][:, :64] = 0

    found = force_lowering(
        checkpoint := with_weights(made, weights), read_weights(checkpoint), lowering
    )

    neurons = f"64 of 128 neurons are left; {lowering} was forced with --lowering"
    lacks = {
        "gathered": ("dense", "gathered was forced with --lowering, but this matrix has no blocks"),
        "compact": (
            "dense",
            "compact was forced with --lowering, but no heads or neurons of this matrix are "
            "all zero",
        ),
    }[lowering]
    whole = found["bert.encoder.layer.1.output.dense"]
    assert (whole.lowering.name, whole.reason) == lacks
    for part in ("intermediate", "output"):
        choice = found[feed_forward.format(part)]
        assert choice.reason == neurons
        assert choice.lowering.name == ("compact" if lowering == "compact" else "compact, gathered")
    query = found["bert.encoder.layer.0.attention.self.query"]
    assert query.reason == (
        "gathered was forced with --lowering" if lowering == "gathered" else lacks[1]
    )


def test_nothing_is_timed_for_a_forced_lowering(
    tmp_path: Path, block_checkpoint: Checkpoint
) -> None:
    """A tuner is not asked, so there are no times that could be of another lowering."""

    def tuner(checkpoint: Checkpoint, weights: ClassifierWeights) -> Tuning:
        raise AssertionError("asked")

    artefact = artefact_from_checkpoint(
        block_checkpoint, tmp_path / "a", ExportRequest(tuner=tuner, lowering="gathered")
    )

    assert (artefact.manifest.measured, artefact.manifest.measured_on) == ((), None)
    assert not (artefact.folder / TUNING_FILE).exists()


def test_a_lowering_that_fits_no_matrix_is_refused(
    tmp_path: Path, dense_checkpoint: Checkpoint
) -> None:
    """What has no blocks cannot be gathered: one line, the reason, and nothing written."""
    result = export(dense_checkpoint.folder, "--output", tmp_path / "a", "--lowering", "gathered")

    assert result.exit_code == 1
    assert "can be lowered as gathered; got dense weights" in result.stderr
    assert not list(tmp_path.iterdir())
