"""The keys that Text Embeddings Inference has in ``/info``."""

from pydantic import BaseModel, Field

from serve.open_model import ServedModel
from serve.settings import ServeSettings
from spd_deploy.domain.number_types import dtype_name
from spd_deploy.domain.versions import PACKAGE, version_of


class TeiClassifier(BaseModel):
    """The labels by their place among the model's outputs, and the reverse."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiInfo(BaseModel):
    """The facts of the model and the limits, by TEI's names."""

    model_id: str = Field(description="The same as `model`; TEI's name of it.")
    model_sha: str | None = Field(description="The same as `checkpoint_sha256`.")
    model_dtype: str = Field(description="TEI's name of `runtime.precision`.")
    model_type: dict[str, TeiClassifier] = Field(
        description="Under the key `classifier` the labels; under `reranker` for models that "
        "give a pair one score."
    )
    max_concurrent_requests: int = Field(description="Texts that are queued or running at most.")
    max_input_length: int = Field(description="The same as `max_tokens`.")
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int = Field(description="Inputs in one request at most.")
    auto_truncate: bool = Field(description="Texts are cut unless the request forbids it.")
    tokenization_workers: int
    version: str = Field(description="Version of this server.")


def tei_info_of(served: ServedModel, settings: ServeSettings) -> TeiInfo:
    """The facts of a model that is served."""
    labels = served.task.labels or ("score",)
    return TeiInfo(
        model_id=served.name,
        model_sha=served.card.sha256,
        model_dtype=dtype_name(served.session.description.precision),
        model_type={
            "reranker" if served.reranks else "classifier": TeiClassifier(
                id2label={str(i): label for i, label in enumerate(labels)},
                label2id={label: i for i, label in enumerate(labels)},
            )
        },
        max_concurrent_requests=settings.max_queue_items,
        max_input_length=served.tokenizer.max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_requests=settings.max_batch_rows,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=True,
        tokenization_workers=settings.tokenizer_threads,
        version=version_of(PACKAGE) or "unknown",
    )
