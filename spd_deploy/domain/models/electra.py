"""ELECTRA: BERT whose embeddings may be narrower than its layers, with a head of its own."""

from spd_deploy.domain.models.architecture import Architecture, HeadLayer
from spd_deploy.domain.models.bert import BERT_LAYER

ELECTRA = Architecture(
    base="electra",
    model_types=("electra",),
    naming=BERT_LAYER,
    head=(
        HeadLayer(name="classifier.dense", activation="Gelu"),
        HeadLayer(name="classifier.out_proj"),
    ),
    projected=True,
)
