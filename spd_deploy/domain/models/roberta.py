"""RoBERTa, and CamemBERT and XLM-RoBERTa, which are stored as RoBERTa."""

from spd_deploy.domain.models.architecture import Architecture, HeadLayer
from spd_deploy.domain.models.bert import BERT_LAYER

ROBERTA_HEAD = (
    HeadLayer(name="classifier.dense", activation="Tanh"),
    HeadLayer(name="classifier.out_proj"),
)

ROBERTA = Architecture(
    base="roberta",
    model_types=("camembert", "roberta", "xlm-roberta"),
    naming=BERT_LAYER,
    head=ROBERTA_HEAD,
    counts_from_padding=True,
)
