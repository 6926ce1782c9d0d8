"""Tokenizers of model folders, against AutoTokenizer on the same folder."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    MPNetTokenizer,
)

from exporters.artefact_folder import copy_beside
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.sessions.awkward_texts import AWKWARD_TEXTS, awkward_inputs
from spd_deploy.sessions.checkpoint_tokenizer import (
    refuse_unembedded,
    tokenizer_json,
    tokenizer_of,
    write_tokenizer,
)
from tests.tiny import CONFIGS, tiny_model

# Settings of tokenizer_config.json that tokenizer.json, which lowers all letters, does not have.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"truncation_side": "left"},
    {"padding_side": "left"},
    {"model_input_names": ["input_ids", "attention_mask"]},
    {"unk_token": "a", "sep_token": "b"},
    {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
    {"tokenizer_class": "DistilBertTokenizer"},
]


def told(folder: Path, **settings: Any) -> Path:
    """The folder with these settings in tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


@cache
def auto_ids(folder: Path, max_tokens: int) -> list[tuple[list[int], list[int]]]:
    """AutoTokenizer's ids and types on the awkward texts; a folder is read once as it is."""
    theirs = AutoTokenizer.from_pretrained(folder)
    found = []
    for text, pair in awkward_inputs(max_tokens):
        expected = theirs(
            [text],
            None if pair is None else [pair],
            truncation="longest_first",
            max_length=max_tokens,
        )
        ids = expected["input_ids"][0]
        found.append((ids, expected.get("token_type_ids", [[0] * len(ids)])[0]))
    return found


def assert_alike(ours: Tokenizer, folder: Path) -> None:
    """Ids and types on the awkward texts are AutoTokenizer's."""
    found = [ours.encode(*texts) for texts in awkward_inputs(ours.max_tokens)]
    expected = auto_ids(folder, ours.max_tokens)
    assert [(list(row.ids), list(row.types)) for row in found] == expected


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_ids_are_those_of_auto_tokenizer(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Whatever tokenizer_config.json says: in the checkpoint, the artefact and from there again."""
    folder = told(tiny_model(tmp_path / "m"), **settings)
    checkpoint = open_checkpoint(folder)
    (tmp_path / "a").mkdir()

    copy_beside(checkpoint, tmp_path / "a")

    assert_alike(tokenizer_of(checkpoint), folder)
    exported = Tokenizer(tmp_path / "a" / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    assert_alike(exported, folder)
    assert_alike(exported, tmp_path / "a")
    again = tokenizer_json(tmp_path / "a")
    assert json.loads(again) == json.loads((tmp_path / "a" / TOKENIZER_FILE).read_text())


def test_settings_that_are_read_make_a_difference(tmp_path: Path) -> None:
    """Letters, accents, Chinese characters, the cut side and types of a pair are not as before."""
    plain = tokenizer_of(open_checkpoint(tiny_model(tmp_path / "m")))
    for number, settings in enumerate(SETTINGS[1:8]):
        folder = told(tiny_model(tmp_path / str(number)), **settings)

        found = tokenizer_of(open_checkpoint(folder))

        differs = any(found.encode(*texts) != plain.encode(*texts) for texts in awkward_inputs(64))
        assert differs == (settings != {"padding_side": "left"})


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_has_its_own_ids(tmp_path: Path, architecture: str) -> None:
    """Separators and types are those of the model's tokenizer."""
    folder = tiny_model(tmp_path / "m", architecture=architecture)

    assert_alike(tokenizer_of(open_checkpoint(folder)), folder)


def test_a_vocabulary_alone_is_a_tokenizer(tmp_path: Path) -> None:
    """Without tokenizer.json the ids come from vocab.txt, as in AutoTokenizer."""
    folder = tiny_model(tmp_path / "m")
    content = json.loads((folder / TOKENIZER_FILE).read_text())
    vocabulary = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    before = tokenizer_of(open_checkpoint(folder)).encode("the film was not good")
    (folder / TOKENIZER_FILE).unlink()

    found = tokenizer_of(open_checkpoint(folder))

    assert found.encode("the film was not good") == before
    assert_alike(found, folder)


def test_no_tokenizer_is_made_up(tmp_path: Path) -> None:
    """A folder without a vocabulary is refused, where transformers makes one of five tokens."""
    folder = tiny_model(tmp_path / "m")
    (folder / TOKENIZER_FILE).unlink()

    with pytest.raises(BadModel, match="has no tokenizer"):
        tokenizer_of(open_checkpoint(folder))


def test_a_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    """A token added to the tokenizer alone is named, with its id and the model's rows."""
    folder = tiny_model(tmp_path / "m")
    tokenizer = BertTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["zuschlag"])
    tokenizer.save_pretrained(folder)

    with pytest.raises(BadModel, match=f"'zuschlag' has id {rows}, the model has {rows}"):
        tokenizer_of(open_checkpoint(folder))


def test_added_tokens_are_kept(tmp_path: Path) -> None:
    """Tokens that were added to the tokenizer and to the embeddings are read in both folders."""
    folder = tiny_model(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zuschlag", AddedToken("<GOOD film>", special=True, lstrip=True)])
    tokenizer.save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    text = "the Zuschlag zuschlag is   <GOOD film> good"
    expected = tokenizer(text)["input_ids"]

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert {len(tokenizer) - 2, len(tokenizer) - 1} <= set(expected)
    assert list(artefact.tokenizer().encode(text).ids) == expected
    assert AutoTokenizer.from_pretrained(artefact.folder)(text)["input_ids"] == expected


def test_a_type_without_an_embedding_is_refused(tmp_path: Path) -> None:
    """Types that the tokenizer gives and the table of types does not have are named."""
    folder = tiny_model(tmp_path / "m")
    file = tmp_path / TOKENIZER_FILE
    file.write_text((folder / TOKENIZER_FILE).read_text().replace('"type_id":1', '"type_id":2'))
    encoder = open_checkpoint(folder).encoder
    tokenizer = Tokenizer(file, max_tokens=16)

    refuse_unembedded(tokenizer, encoder, folder, types=1)
    with pytest.raises(BadModel, match="type 2, the model has 2"):
        refuse_unembedded(tokenizer, encoder, folder, types=2)


def test_ids_that_cannot_be_the_same_are_refused(tmp_path: Path) -> None:
    """A setting that tokenizer.json cannot hold is found on the awkward texts."""
    folder = told(tiny_model(tmp_path / "m"), split_special_tokens=True)

    with pytest.raises(BadModel, match=r"no tokenizer.json gives the ids of AutoTokenizer.*CLS"):
        tokenizer_of(open_checkpoint(folder))
    with pytest.raises(BadModel, match=r"no tokenizer.json gives the ids"):
        write_tokenizer(folder, tmp_path / TOKENIZER_FILE, max_tokens=32)


@pytest.mark.parametrize("kept", [(TOKENIZER_FILE,), ("vocab.txt",), (TOKENIZER_FILE, "vocab.txt")])
def test_mpnets_own_tokenizer_is_read(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """RoBERTa's separators around BERT's pieces, from either file."""
    folder = tiny_model(tmp_path / "m", architecture="mpnet")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "[PAD]", *letters, "film", "##s", "<mask>"]
    MPNetTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    for name in {TOKENIZER_FILE, "vocab.txt"} - {*kept}:
        (folder / name).unlink()

    written = Tokenizer(folder / TOKENIZER_FILE, max_tokens=50, content=tokenizer_json(folder))

    assert_alike(written, folder)
    assert written.encode("a film", "films").ids == (0, 6, 32, 2, 2, 32, 33, 2)
    assert written.pad_id == 1


@pytest.mark.parametrize("spaced", [False, True])
def test_byte_pairs_are_those_of_auto_tokenizer(tmp_path: Path, spaced: bool) -> None:
    """RoBERTa's own tokenizer, with the setting that puts a space before each text."""
    backend = Fast(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    backend.train_from_iterator(AWKWARD_TEXTS, trainer)
    folder = tiny_model(tmp_path / "m", architecture="roberta")
    backend.save(str(folder / TOKENIZER_FILE))
    told(folder, tokenizer_class="RobertaTokenizer", add_prefix_space=spaced)

    written = Tokenizer(folder / TOKENIZER_FILE, max_tokens=50, content=tokenizer_json(folder))

    assert_alike(written, folder)


@pytest.mark.parametrize(("limit", "longest"), [(16, 16), (1e30, 64), (512, 64), (None, 64)])
def test_texts_are_cut_where_the_tokenizer_cuts_them(
    tmp_path: Path, limit: float | None, longest: int
) -> None:
    """A folder of others cuts at model_max_length, but never beyond the table of positions."""
    folder = told(tiny_model(tmp_path / "m"), model_max_length=limit)

    assert open_checkpoint(folder).max_tokens == longest


def test_a_sentencepiece_model_alone_is_named(tmp_path: Path) -> None:
    """The error says which packages convert it, not what Transformers tried last."""
    folder = tiny_model(tmp_path / "m", architecture="deberta-v2")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    (folder / "spm.model").write_bytes(b"no pieces")

    with pytest.raises(BadModel, match=r"spm\.model.*pip install sentencepiece"):
        tokenizer_json(folder)
