"""ERNIE: BERT with types of tasks among its embeddings."""

from spd_deploy.domain.models.architecture import Architecture, HeadLayer
from spd_deploy.domain.models.bert import BERT_LAYER

ERNIE = Architecture(
    base="ernie",
    model_types=("ernie",),
    naming=BERT_LAYER,
    head=(HeadLayer(name="ernie.pooler.dense", activation="Tanh"), HeadLayer(name="classifier")),
    task_types=True,
)
