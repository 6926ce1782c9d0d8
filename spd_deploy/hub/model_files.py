"""The files of a model that are fetched or pushed: of an artefact, a checkpoint, or a plain model.

Folders of the hub hold more, such as the same weights for other libraries.
"""

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.folders import CONFIG_FILE, DISTIL_FILE, MANIFEST_FILE
from spd_deploy.domain.golden import ANSWERS_FILE, GOLDEN_FILE
from spd_deploy.domain.stored_weights import INDEX_FILE, WEIGHTS_FILE
from spd_deploy.domain.text import TOKENIZER_FILES

CARD_FILE = "README.md"
# All but the weights of a checkpoint, ours or of Transformers; most are not in every one.
CHECKPOINT_FILES = (
    CONFIG_FILE,
    SPD_FILE,
    DISTIL_FILE,
    *TOKENIZER_FILES,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    CARD_FILE,
)
# What a card of a checkpoint shows.
PICTURE_FILES = ("curves.png", "reliability.png")
# Patterns of the files of a checkpoint or an artefact on the hub.
HUB_FILES = (
    *CHECKPOINT_FILES,
    WEIGHTS_FILE,
    INDEX_FILE,
    "model-*.safetensors",
    MANIFEST_FILE,
    GOLDEN_FILE,
    ANSWERS_FILE,
    "model.onnx",
    "portable.onnx",
    "weights.bin",
    "network.json",
    "build.json",
    "tuning.json",
)
