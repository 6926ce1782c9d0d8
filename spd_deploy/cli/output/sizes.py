"""The sizes of an artefact's weights on disk, as text."""

from spd_deploy.domain.artefact import Artefact


def spelled_sizes(artefact: Artefact) -> str:
    """The sizes, such as ``matrices 10.7 MB (42.5 MB dense in fp32), embeddings 12.6 MB, ...``."""
    from exporters.onnx.stored_sizes import stored_bytes
    from exporters.torch.pack import stored_tensor_bytes
    from spd_deploy.sessions.open import graph_file

    manifest = artefact.manifest
    names = [row.name for row in manifest.matrices]
    file = artefact.folder / graph_file(manifest.format, "onnxruntime")
    stored = (stored_tensor_bytes if manifest.format == "torch" else stored_bytes)(file, names)
    dense = sum(4 * row.shape[0] * row.shape[1] for row in manifest.matrices)
    return (
        f"matrices {_mb(stored.matrices)} ({_mb(dense)} dense in fp32), "
        f"embeddings {_mb(stored.embeddings)} (word embeddings in {stored.word_embeddings}), "
        f"biases, norms and head {_mb(stored.rest)}"
    )


def _mb(size_bytes: int) -> str:
    """A size in megabytes, such as ``10.7 MB``."""
    return f"{size_bytes / 1e6:.1f} MB"
