"""Data2VecText: RoBERTa under a name of its own."""

from dataclasses import replace

from spd_deploy.domain.models.roberta import ROBERTA

DATA2VEC = replace(ROBERTA, base="data2vec_text", model_types=("data2vec-text",))
