"""DistilBERT: BERT without token types, under names of its own."""

from spd_deploy.domain.models.architecture import Architecture, HeadLayer, Naming

DISTILBERT = Architecture(
    base="distilbert",
    model_types=("distilbert",),
    naming=Naming(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        intermediate="ffn.lin1",
        output="ffn.lin2",
        output_norm="output_layer_norm",
    ),
    head=(HeadLayer(name="pre_classifier", activation="Relu"), HeadLayer(name="classifier")),
    token_types=False,
    layers="transformer.layer",
    activation_field="activation",
    epsilon=1e-12,
)
