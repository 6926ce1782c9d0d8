"""Latency of dense and sparse encoders on this machine, with random weights.

Time does not depend on what a model has learned, so nothing is trained: weights are drawn, pruned
by the trainer's own masks, exported as ``spd export`` does, and measured as ``spd bench`` does.

    python -m benchmarks.shapes --model minilm --output /tmp/minilm      # 6 layers of 384
    python -m benchmarks.shapes --model base --output /tmp/base          # 12 layers of 768
    python -m benchmarks.shapes --model deberta --output /tmp/deberta    # DeBERTa-v3-base
    python -m benchmarks.shapes --model modernbert --at 1x512,1x2048 --output /tmp/modernbert

The dense model and the fast block run in every runtime and precision, so that the best sparse arm
meets the best dense one; the other patterns in both runtimes' fp32 and in OpenVINO's int8. There
blocks are gathered whatever the cost model says, which is ONNX Runtime's: ``--tune`` would see to
it. Beside our dense graph of a BERT stands the one that ONNX Runtime's own transformer optimiser
makes. ``--arms`` and ``--runtimes`` measure fewer. Where a run takes seconds, ``--min-runs 1`` and
``--no-memory`` measure in less of the time.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
)

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import CalibrationSet, Precision
from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.artefact_arms import arm_of, arms_of
from spd_deploy.benchmark.dense.fused import fused_from_checkpoint
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.publish import refuse_taken, write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.benchmark.run import RunTools, run_benchmark
from spd_deploy.benchmark.tables import host_latency_table, size_table
from spd_deploy.cli.output.console import TerminalProgress, show_table
from spd_deploy.domain.artefact import Artefact, hashes_of, save_manifest
from spd_deploy.domain.checkpoint import (
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
    save_description,
)
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import Block, Pattern, Structured
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import DATA_FILE, MODEL_FILE, PORTABLE_FILE
from spd_train.data.built_in import make_model
from spd_train.model import adapt, linear_weights, save_classifier
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.masks import apply_masks, densities_of, masks_of, targets_of

MODELS: dict[str, dict[str, Any]] = {
    "minilm": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
    },
    "base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    },
    "large": {
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
    },
}
# ModernBERT-base, with 22 layers of 768, and DeBERTa-v3-base, with 12.
UNLIKE_BERT = ("modernbert", "deberta")
ARMS: dict[str, Pattern | None] = {
    "dense": None,
    "block-64x1-75": Block(rows=64, columns=1, sparsity=0.75),
    "block-64x1-90": Block(rows=64, columns=1, sparsity=0.9),
    "block-128x1-90": Block(rows=128, columns=1, sparsity=0.9),
    "structured-75": Structured(sparsity=0.75),
}


PRECISIONS = ("fp32", "int8")
RUNTIMES = ("onnxruntime", "openvino", "openvino:bf16")
EVERYWHERE = ("dense", "block-128x1-90")


def main() -> None:
    """Make the arms, measure them, write the report."""
    options = parsed()
    try:
        refuse_taken(options.output, overwrite=options.overwrite)  # before minutes are spent
    except SpdError as err:
        raise SystemExit(f"benchmarks.shapes: {err}") from err
    settings = BenchmarkSettings(
        shapes=options.at,
        threads=default_threads(),
        rounds=options.rounds,
        seconds=options.seconds,
        min_runs=options.min_runs,
    )
    tools = RunTools() if options.memory else RunTools(weigh=lambda *_: None)
    with tempfile.TemporaryDirectory() as scratch:
        arms = [
            arm
            for name in options.arms
            for arm in arms_for(Path(scratch), options.model, name, ARMS[name], options)
        ]
        report = run_benchmark(
            arms,
            settings,
            baselines=("dense (onnxruntime)",),
            tools=tools,
            progress=TerminalProgress(),
        )
    judgement = judge(report)
    for table in (host_latency_table(report, judgement), size_table(report)):
        show_table(table.title, table.columns, table.rows)
    page = write_report(report, options.output, overwrite=options.overwrite, judgement=judgement)
    print(page)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=(*MODELS, *UNLIKE_BERT), default="minilm")
    parser.add_argument(
        "--at", type=shapes, default="1x32,1x128,8x128", help="default: %(default)s"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument(
        "--min-runs", type=int, default=3, help="of an arm in each round; default: %(default)s"
    )
    parser.add_argument(
        "--no-memory", dest="memory", action="store_false", help="do not measure memory"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    return parser.parse_args()


def shapes(spelled: str) -> tuple[Shape, ...]:
    """The shapes that a list such as ``1x128,8x128`` names: rows x tokens."""
    return tuple(
        Shape(batch=int(rows), seq=int(tokens))
        for rows, _, tokens in (one.partition("x") for one in spelled.split(","))
    )


def arms_for(
    scratch: Path, model: str, name: str, pattern: Pattern | None, options: argparse.Namespace
) -> list[Arm]:
    """A model in fp32 and in int8, each in the runtimes that it is measured in."""
    longest = max(128, *(shape.seq for shape in options.at))
    checkpoint = checkpoint_of(scratch, model, name, pattern, max_tokens=longest)
    plain = artefact_from_checkpoint(checkpoint, scratch / name)
    artefacts = [plain]
    if "int8" in options.precisions:
        request = ExportRequest(
            precision=Precision.INT8,
            calibration_set=unjudged(checkpoint),
            lowering="gathered" if isinstance(pattern, Block) else None,
        )
        artefacts.append(artefact_from_checkpoint(checkpoint, scratch / f"{name}-int8", request))
    fused = []
    if pattern is None and model not in UNLIKE_BERT and "onnxruntime" in options.runtimes:
        fused = [fused_arm(checkpoint, plain, scratch / "fused")]
    shutil.rmtree(checkpoint.folder)
    arms = arms_of(artefacts, [RUNTIME_CHOICES[one] for one in options.runtimes])
    wanted = (
        f"{name} (onnxruntime)",
        f"{name} (openvino)",
        f"{name}-int8 (openvino:bf16)",
    )
    return [arm for arm in arms if name in EVERYWHERE or arm.name in wanted] + fused


def fused_arm(checkpoint: Checkpoint, dense: Artefact, folder: Path) -> Arm:
    """The dense model as ONNX Runtime's own tools make it, in the place of our graph."""
    shutil.copytree(dense.folder, folder)
    for file in (PORTABLE_FILE, DATA_FILE):
        (folder / file).unlink()
    fused_from_checkpoint(checkpoint.folder, checkpoint.encoder, folder / MODEL_FILE, gpu=False)
    manifest = replace(dense.manifest, files=hashes_of(folder))
    save_manifest(folder, manifest)
    artefact = Artefact(folder=folder, manifest=manifest)
    name = "dense, fused (onnxruntime)"
    return arm_of(
        ArmSource(name=name, artefact=artefact, runtime_choice=RUNTIME_CHOICES["onnxruntime"])
    )


def unjudged(checkpoint: Checkpoint) -> CalibrationSet:
    """Random texts to calibrate on, and no score: a model of random weights has none."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1, checkpoint.encoder.vocabulary, (8, 64))
    batch = Batch(ids_BS=ids, mask_BS=np.ones_like(ids), types_BS=np.zeros_like(ids))
    return CalibrationSet(batches=[batch], score=lambda _: {}, metric="accuracy", max_drop=100.0)


def artefact_of(
    scratch: Path, model: str, name: str, pattern: Pattern | None, *, keep: bool = False
) -> Artefact:
    """A random BERT of the model's sizes, pruned and exported; ``keep`` leaves its checkpoint."""
    checkpoint = checkpoint_of(scratch, model, name, pattern)
    artefact = artefact_from_checkpoint(checkpoint, scratch / name)
    if not keep:
        shutil.rmtree(checkpoint.folder)
    return artefact


def checkpoint_of(
    scratch: Path, model: str, name: str, pattern: Pattern | None, *, max_tokens: int = 128
) -> Checkpoint:
    """A random classifier of the model's sizes, pruned by magnitude."""
    folder = make_model(scratch / f"{name}-checkpoint")  # for its tokenizer
    torch.manual_seed(0)
    random = random_classifier(model)
    config = random.config
    save_classifier(config, random.state_dict(), folder)
    adapt(random)
    plain = open_checkpoint(folder)
    weights = linear_weights(random, plain.encoder)
    if pattern is not None:
        masks = masks_of(plain.encoder, targets_of(plain.encoder, pattern), magnitudes(weights))
        apply_masks(weights, masks)
        save_classifier(config, random.state_dict(), folder)
    checkpoint = replace(
        plain,
        pattern=pattern,
        densities=densities_of(weights),
        max_tokens=max_tokens,
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    save_description(checkpoint)
    return checkpoint


def random_classifier(model: str) -> PreTrainedModel:
    """A classifier of the model's sizes with random weights."""
    if model == "modernbert":
        return ModernBertForSequenceClassification(ModernBertConfig(pad_token_id=0))
    if model == "deberta":
        return DebertaV2ForSequenceClassification(deberta_config())
    config = BertConfig(vocab_size=30522, max_position_embeddings=512, **MODELS[model])
    return BertForSequenceClassification(config)


def deberta_config() -> DebertaV2Config:
    """DeBERTa-v3-base, but for its vocabulary, which no text's time depends on."""
    fields: dict[str, Any] = {
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    }
    return DebertaV2Config(vocab_size=30522, **fields, **MODELS["base"])


if __name__ == "__main__":
    main()
