"""MPNet: RoBERTa without token types, with one table of relative positions for all layers.

Transformers' code has the number of buckets and the padding token's id in it: it sorts distances
into 32 buckets and counts positions from id 1, whatever ``config.json`` says.
"""

from spd_deploy.domain.models.architecture import Architecture, Naming
from spd_deploy.domain.models.relative_positions import RelativePositions
from spd_deploy.domain.models.roberta import ROBERTA_HEAD

MPNET = Architecture(
    base="mpnet",
    model_types=("mpnet",),
    naming=Naming(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        intermediate="intermediate.dense",
        output="output.dense",
        output_norm="output.LayerNorm",
    ),
    head=ROBERTA_HEAD,
    token_types=False,
    counts_from_padding=True,
    relative_positions=RelativePositions(
        module="encoder.relative_attention_bias", buckets=32, max_distance=128
    ),
    fixed={"relative_attention_num_buckets": 32, "pad_token_id": 1},
)
