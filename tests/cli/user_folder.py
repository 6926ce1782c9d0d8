"""A folder as README takes it as given: GLUE data, an encoder, own files; all of it tiny."""

import json
from pathlib import Path

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.tasks import TASKS
from spd_train.data.grammar import generate
from tests.tiny import tiny_checkpoint, tiny_model


def mrpc_files(folder: Path) -> Path:
    """Files in MRPC's layout, with its byte-order mark and quotes, of sentences of our own."""
    folder.mkdir(parents=True)
    rows = generate("agreement", "dev")
    for name, part in (("train.tsv", rows[:96]), ("dev.tsv", rows[96:128])):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for i, row in enumerate(part):
            lines.append(f'{int(row.label == 1)}\t{i}\t{i}\t"{row.text}\t{row.pair}')
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def cola_files(folder: Path) -> Path:
    """Files in CoLA's layout, which has no header: source, label, mark, sentence."""
    folder.mkdir(parents=True)
    rows = generate("opinions", "dev")
    for name, part in (("train.tsv", rows[:32]), ("dev.tsv", rows[32:48])):
        lines = [f"own\t{int(row.label == 1)}\t\t{row.text}" for row in part]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def user_folder(folder: Path) -> Path:
    """Fill ``folder`` with what the pages take as given."""
    mrpc_files(folder / "GLUE" / "MRPC")
    cola_files(folder / "GLUE" / "CoLA")
    tiny_model(folder / "MINILM_FOLDER", task=TASKS["mrpc"], intermediate=256)
    tiny_checkpoint(folder / "SPARSE_FOLDER", task="mrpc", pattern=parse_pattern("block:32x1"))
    (folder / "SPARSE_FOLDER" / SPD_FILE).unlink()
    pair = {"text": "The film was good.", "text_pair": "I love it."}
    (folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(pair) + "\n")
    reviews = "".join(
        f'"{row.text}",{1 + 4 * int(row.label == 1)}\n' for row in generate("opinions", "dev")[:100]
    )
    (folder / "reviews.csv").write_text("review,stars\n" + reviews)
    topics = {"film": "cinema", "series": "cinema", "song": "music", "hotel": "travel"}
    articles = [
        {"text": row.text, "topics": [t for word, t in topics.items() if word in row.text]}
        for row in generate("opinions", "dev")[:60]
    ]
    (folder / "articles.jsonl").write_text("".join(json.dumps(one) + "\n" for one in articles))
    rated = [
        {"text": row.text, "probabilities": {"good": 0.9, "bad": 0.1} if row.label else {"bad": 1}}
        for row in generate("opinions", "dev")[:60]
    ]
    (folder / "rated.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rated))
    return folder
