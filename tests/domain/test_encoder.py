"""Encoders found in the tensors of models, and models that are refused with the reason."""

from typing import Any

import pytest
import torch
import transformers
from transformers import PretrainedConfig

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.models.architecture import ROLES
from spd_deploy.domain.models.layer_attention import LayerAttention
from spd_deploy.domain.patterns import Structured
from spd_train.stacked import apart
from tests.tiny import CONFIGS, OF_ROBERTA, SIZES, classifier_of, tiny_config

Shapes = dict[str, tuple[int, ...]]


def shapes_of(config: PretrainedConfig) -> Shapes:
    """The tensors of transformers' own classifier; stacked ones one by one."""
    with torch.device("meta"):
        model = classifier_of(config)
    state = apart(model.state_dict(), config.model_type)
    return {name: tuple(value.shape) for name, value in state.items()}


def found(config: PretrainedConfig) -> Encoder:
    return Encoder.found_in(shapes_of(config), config.to_dict())


@pytest.fixture(scope="module")
def bert_base() -> Encoder:
    return found(transformers.BertConfig())


@pytest.fixture
def shapes() -> Shapes:
    return shapes_of(tiny_config())


@pytest.fixture
def config() -> dict[str, Any]:
    value: dict[str, Any] = tiny_config().to_dict()
    return value


def test_bert_base_has_the_papers_count_of_weights(bert_base: Encoder) -> None:
    """72 matrices with 84,934,656 weights, as SPD prunes them."""
    matrices = list(bert_base.matrices())

    assert len(matrices) == 72
    assert sum(m.shape[0] * m.shape[1] for m in matrices) == 84_934_656


@pytest.mark.parametrize(
    ("architecture", "prefix", "query", "output"),
    [
        ("bert", "bert.encoder.layer", "attention.self.query", "output.dense"),
        ("roberta", "roberta.encoder.layer", "attention.self.query", "output.dense"),
        ("camembert", "roberta.encoder.layer", "attention.self.query", "output.dense"),
        ("xlm-roberta", "roberta.encoder.layer", "attention.self.query", "output.dense"),
        ("electra", "electra.encoder.layer", "attention.self.query", "output.dense"),
        ("distilbert", "distilbert.transformer.layer", "attention.q_lin", "ffn.lin2"),
        ("ernie", "ernie.encoder.layer", "attention.self.query", "output.dense"),
        ("modernbert", "model.layers", "attn.Wq", "mlp.Wo"),
        ("data2vec-text", "data2vec_text.encoder.layer", "attention.self.query", "output.dense"),
    ],
)
def test_encoders_are_found(architecture: str, prefix: str, query: str, output: str) -> None:
    """Prefix, roles and sizes are those of the model, whatever it is called."""
    encoder = found(tiny_config(architecture, layers=3))

    assert encoder.prefix == prefix
    assert encoder.base == prefix.split(".")[0]
    assert (encoder.naming.query, encoder.naming.output) == (query, output)
    assert encoder.layers == 3
    assert encoder.positions == SIZES["positions"]
    assert encoder.first_position == (2 if architecture in OF_ROBERTA else 0)
    assert encoder.head_size == SIZES["hidden"] // SIZES["heads"]
    assert encoder.intermediate == SIZES["intermediate"]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_matrices_are_the_layers_linear_modules(architecture: str) -> None:
    """The matrices are all linear modules of transformers' own layers, each with its shape."""
    config = tiny_config(architecture)
    with torch.device("meta"):
        model = classifier_of(config)
    encoder = found(config)
    layers = model.get_submodule(encoder.prefix)

    linear = {
        f"{encoder.prefix}.{name}.weight": module.weight
        for name, module in layers.named_modules()
        if isinstance(module, torch.nn.Linear)
    }

    one_by_one = apart(linear, architecture)
    expected = {name: tuple(value.shape) for name, value in one_by_one.items()}
    assert {m.weight_name: m.shape for m in encoder.matrices()} == expected
    roles = [role for role in ROLES if role != "gate" or architecture == "modernbert"]
    assert [m.role for m in encoder.matrices()] == roles * SIZES["layers"]


@pytest.mark.parametrize("architecture", sorted(CONFIGS.keys() - {"modernbert", "deberta-v2"}))
def test_the_longest_text_is_the_longest_that_runs(architecture: str) -> None:
    """A text of ``positions`` tokens runs in transformers, and one more does not."""
    config = tiny_config(architecture, layers=1)
    model = classifier_of(config).train(mode=False)
    longest = found(config).positions

    model(input_ids=torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 7))


def test_matrices_alone_tell_the_same() -> None:
    """An artefact, which names its matrices only, has the encoder of its checkpoint."""
    for architecture in CONFIGS:
        encoder, config = found(tiny_config(architecture)), tiny_config(architecture)
        matrices = {m.weight_name: m.shape for m in encoder.matrices()}

        assert Encoder.of_matrices(matrices, config.to_dict()) == encoder


def test_matrices_are_the_models_own(dense_checkpoint: Checkpoint) -> None:
    """Every name and shape is one of the stored tensors."""
    from safetensors.numpy import load_file

    stored = load_file(dense_checkpoint.weights)

    for matrix in dense_checkpoint.encoder.matrices():
        assert stored[matrix.weight_name].shape == matrix.shape


def test_every_matrix_is_coupled_once(bert_base: Encoder) -> None:
    """Heads and neurons share all matrices out among them."""
    coupled = [m.name for group in bert_base.coupled() for m in group]

    assert sorted(coupled) == sorted(m.name for m in bert_base.matrices())


def test_coupled_slices_are_equally_many(bert_base: Encoder) -> None:
    """The structured pattern cuts all matrices of a group into the same number of slices."""
    for group in bert_base.coupled():
        counts = set()
        for matrix in group:
            pattern = bert_base.pattern_on(matrix, Structured())
            assert isinstance(pattern, Structured)
            counts.add(matrix.shape[pattern.axis] // pattern.width)
        assert counts in ({12}, {3072})


SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 60}
KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("DebertaConfig", {**SMALL, "relative_attention": True}, "positions are relative"),
    ("DebertaV2Config", {**SMALL, "relative_attention": True}, "neither c2p nor p2c"),
    ("MPNetConfig", {**SMALL, "relative_attention_num_buckets": 16}, "num_buckets 32"),
    ("MPNetConfig", {**SMALL, "pad_token_id": 0}, "pad_token_id 1"),
    ("NomicBertConfig", {**SMALL, "pad_token_id": 0}, "positions are rotary"),
    ("RoFormerConfig", SMALL, "no roformer.embeddings.position_embeddings"),
    ("AlbertConfig", SMALL, "share one set of weights"),
    ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 60}, "decoder"),
    ("BartConfig", {"d_model": 64, "vocab_size": 60}, "an encoder and a decoder"),
    ("BigBirdConfig", SMALL, "block_sparse"),
    ("LongformerConfig", {**SMALL, "attention_window": 8}, "over a window"),
    ("ConvBertConfig", SMALL, "holds attention.self.conv"),
    ("SqueezeBertConfig", {**SMALL, "embedding_size": 64}, "convolves"),
    ("RobertaPreLayerNormConfig", SMALL, "attention.output.LayerNorm.bias"),
    ("XLMRobertaXLConfig", SMALL, "attention.output.LayerNorm.bias"),
    ("MobileBertConfig", {"num_hidden_layers": 2, "vocab_size": 60}, "norms are of another kind"),
    ("CanineConfig", {**SMALL, "intermediate_size": 128}, "3 stacks"),
]


@pytest.mark.parametrize(("kind", "sizes", "reason"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_another_kind_of_model_is_refused(kind: str, sizes: dict[str, Any], reason: str) -> None:
    """The error says what about the model is not handled, and which models are."""
    with pytest.raises(BadModel, match=reason) as caught:
        found(getattr(transformers, kind)(**sizes))

    assert "DistilBERT" in caught.value.fix


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_decoder": True}, "decoder"),
        ({"add_cross_attention": True}, "decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"num_attention_heads": 7}, "multiple"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"num_attention_heads": "many"}, "num_attention_heads"),
        ({"hidden_size": 32}, "disagree about hidden_size"),
        ({"num_hidden_layers": 3}, "disagree about num_hidden_layers"),
        ({"layer_norm_type": "no_norm"}, "another kind, layer_norm_type 'no_norm'"),
        ({"norm_type": "rms_norm"}, "another kind, norm_type"),
        ({"pre_layer_norm": True}, "come before each part"),
        ({"is_causal": True}, "decoder"),
        ({"rope_theta": 10000.0}, "positions are rotary, rope_theta"),
        ({"use_rotary_embeddings": True}, "rotary, use_rotary_embeddings"),
        ({"alibi": True}, "biases of the attention, alibi"),
        ({"use_glu": True}, "have gates, use_glu"),
        ({"sliding_window": 128}, "over a window"),
        ({"num_key_value_heads": 1}, "heads are of another kind, num_key_value_heads 1"),
        ({"head_dim": 7}, "heads are of another kind, head_dim 7"),
        ({"pruned_heads": {"0": [1]}}, "heads were pruned"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
        ({"auto_map": {"AutoModelForMaskedLM": "modeling.Mine"}}, "code of its own, modeling.Mine"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    shapes: Shapes, config: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    """A decoder's settings, missing sizes and sizes of another model are named."""
    with pytest.raises(BadModel, match=reason):
        Encoder.found_in(shapes, {**config, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"head_dim": 16, "num_key_value_heads": 4, "attention_head_size": None},
        {"task_properties": "reviews", "is_causal": False, "rotary_value": False},
        {"use_sliding_window": False, "sliding_window": 4096},
    ],
    ids=str,
)
def test_a_config_that_says_what_is_so_anyway_is_read(
    shapes: Shapes, config: dict[str, Any], change: dict[str, Any]
) -> None:
    """Fields that agree with the weights, are switched off, or are names alone hinder nothing."""
    assert Encoder.found_in(shapes, {**config, **change}) == Encoder.found_in(shapes, config)


LAYER = "bert.encoder.layer."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {n: v for n, v in s.items() if LAYER not in n}, "none of its tensors"),
        (lambda s: {n: v for n, v in s.items() if f"{LAYER}0." not in n}, "lack layer 0"),
        (lambda s: {n: v for n, v in s.items() if f"{LAYER}1." not in n}, "num_hidden_layers"),
        (lambda s: {n: v for n, v in s.items() if "value.bias" not in n}, "no .*value.bias"),
        (lambda s: {n: v for n, v in s.items() if "position" not in n}, "absolute positions"),
        (lambda s: {**s, f"{LAYER}1.adapter.weight": (2, 2)}, "adapters.*1.adapter.weight"),
        (lambda s: {**s, f"{LAYER}0.output.dense.lora_A.weight": (2, 2)}, "merge_and_unload"),
        (lambda s: {**s, f"{LAYER}0.output.dense.ia3_l.default": (2, 2)}, "merge_and_unload"),
        (lambda s: {n.replace("y.weight", "y.weight_v"): v for n, v in s.items()}, "weight_norm"),
        (lambda s: {n.replace("y.weight", "y.weight_orig"): v for n, v in s.items()}, "prune"),
        (lambda s: {f"module.{n}": v for n, v in s.items()}, r"named module.bert\. .*reads bert\."),
        (lambda s: {**s, f"{LAYER}0.intermediate.dense.weight": (8,)}, "does not fit"),
        (lambda s: {**s, f"{LAYER}1.output.dense.weight": (64, 9)}, r"\(64, 9\), expected \(64,"),
        (lambda s: {**s, f"{LAYER}1.attention.self.key.weight": (32, 64)}, "key.weight does not"),
        (lambda s: {**s, "b.layers.0.attention.q_lin.weight": (2, 2)}, "2 stacks"),
    ],
)
def test_tensors_that_make_no_encoder_are_refused(
    shapes: Shapes, config: dict[str, Any], change: Any, reason: str
) -> None:
    """A missing layer, bias or table, another tensor, and a wrong shape are named."""
    with pytest.raises(BadModel, match=reason):
        Encoder.found_in(change(shapes), config)


def test_positions_behind_an_unknown_padding_are_refused() -> None:
    """RoBERTa's kin count positions from the padding token's id, so it must be known."""
    config = tiny_config("roberta")

    with pytest.raises(BadModel, match="pad_token_id"):
        Encoder.found_in(shapes_of(config), {**config.to_dict(), "pad_token_id": None})


def test_a_table_without_positions_is_refused() -> None:
    """The rows up to padding's are no token's, so a table of no more fits no text."""
    config = tiny_config("roberta", positions=0)

    with pytest.raises(BadModel, match="2 rows, 2 for padding"):
        Encoder.found_in(shapes_of(config), config.to_dict())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classifier_pooling": "max"}, "classifier_pooling.* got 'max', expected cls or mean"),
        ({"classifier_activation": "silu"}, "activation of its head is silu"),
        ({"local_attention": 1}, "local_attention.* expected a whole number"),
        ({"layer_types": ["full_attention"]}, "layer_types.* for each of 2 layers"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters.* scales no"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "got 'yarn'"),
        ({"rope_parameters": None, "local_rope_theta": -1}, "local_rope_theta.* got -1"),
        ({"is_decoder": True}, "decoder"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_modernbert_of_another_kind_is_refused(change: dict[str, Any], reason: str) -> None:
    """The error names the field, what it has and what is handled."""
    config = tiny_config("modernbert")

    with pytest.raises(BadModel, match=reason):
        Encoder.found_in(shapes_of(config), {**config.to_dict(), **change})


@pytest.mark.parametrize("spelled", ["old", "new"])
def test_what_modernberts_layers_attend_to_is_read_as_both_kinds_of_files_spell_it(
    spelled: str,
) -> None:
    """Every third layer the whole text, others 4 tokens to each side, with angles of their own."""
    config = tiny_config("modernbert", layers=4).to_dict()
    if spelled == "old":
        config |= {"layer_types": None, "rope_parameters": None, "global_attn_every_n_layers": 3}
        config |= {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
        config |= {"position_embedding_type": "sans_pos", "reference_compile": True}

    encoder = Encoder.found_in(shapes_of(tiny_config("modernbert", layers=4)), config)

    whole = LayerAttention(theta=160_000.0)
    near = LayerAttention(theta=10_000.0, window=4)
    assert encoder.attention == (whole, near, near, whole)
