"""BERT, and MiniLM, which is stored as BERT."""

from spd_deploy.domain.models.architecture import Architecture, HeadLayer, Naming

BERT_LAYER = Naming(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)

BERT = Architecture(
    base="bert",
    model_types=("bert",),
    naming=BERT_LAYER,
    head=(HeadLayer(name="bert.pooler.dense", activation="Tanh"), HeadLayer(name="classifier")),
)
