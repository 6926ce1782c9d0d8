"""Each artefact answers in Optimum as its checkpoint did, and in a pipeline as it does alone.

Runs in an environment of its own that has Optimum and none of our packages: all it knows is the
folders that ``export.py`` wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from safetensors.numpy import load_file
from transformers import AutoTokenizer, pipeline

TOLERANCE = 1e-4


def check(folder: Path) -> float:
    """The largest difference of logits from the checkpoint's; fails where anything else differs."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    model = ORTModelForSequenceClassification.from_pretrained(folder / "artefact")
    tokenizer = AutoTokenizer.from_pretrained(folder / "artefact")

    golden = load_file(folder / "artefact" / "golden.safetensors")
    logits_BC = golden.pop("logits")
    inputs = {name: torch.from_numpy(value) for name, value in golden.items()}
    found_BC = model(**inputs).logits.numpy()
    np.testing.assert_allclose(found_BC, logits_BC, TOLERANCE, TOLERANCE)

    for pair, ids in zip(expected["texts"], expected["ids"], strict=True):
        assert tokenizer(*pair)["input_ids"] == ids, (folder.name, pair)
    encoded = tokenizer(*zip(*expected["texts"], strict=True), padding=True, return_tensors="pt")
    shares_BC = model(**encoded).logits.softmax(-1)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for (text, pair), shares in zip(expected["texts"], shares_BC, strict=True):
        answer = {a["label"]: a["score"] for a in classify({"text": text, "text_pair": pair})}
        alone = [answer[model.config.id2label[i]] for i in range(len(shares))]
        np.testing.assert_allclose(alone, shares.numpy(), TOLERANCE, TOLERANCE)
    return float(np.abs(found_BC - logits_BC).max())


if __name__ == "__main__":
    folders = sorted(p.parent for p in Path(sys.argv[1]).glob("*/expected.json"))
    assert folders, f"no artefacts below {sys.argv[1]}"
    for folder in folders:
        print(f"{folder.name}: logits {check(folder):.1e} from the checkpoint's, same tokens")
