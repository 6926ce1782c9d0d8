"""How large the half-precision values of a graph get: whether fp16 holds them, and with what room.

On a CPU ONNX Runtime computes halves in single and rounds where it likes, so an overflow on a GPU
need not show in its logits. So the graph itself is asked, on the golden inputs, for the largest
magnitude of every value that is half.
"""

from pathlib import Path

from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.golden import Golden
from spd_deploy.sessions.onnxruntime import OnnxSession

LARGEST = 65504.0  # that fp16 has
_WATCHED = "watched.onnx"  # beside the graph, whose weights it shares, and only while it is run


def peak_of_halves(model: Path, golden: Golden) -> float:
    """The largest magnitude of a half-precision value on the golden inputs; 0 where none is half.

    Raises:
        VerificationFailed: it is more than fp16 holds.
    """
    watched = model.with_name(_WATCHED)
    try:
        names = _watch(model, watched)
        if not names:
            return 0.0
        with OnnxSession(watched, precision="fp16") as session:
            values = session.values([_output(name) for name in names], golden.batch)
    finally:
        watched.unlink(missing_ok=True)
    peaks = {name: float(value) for name, value in zip(names, values, strict=True)}
    # A value that is no number came from one that is too large, which compares as such.
    over = [name for name, peak in peaks.items() if not peak <= LARGEST]
    if over:
        raise VerificationFailed(
            f"the model overflows fp16, which ends at {LARGEST:.0f}",
            got=f"{peaks[over[0]]:.4g} in {over[0]}",
            fix="nothing was written; export with --precision fp32",
        )
    return max(peaks.values())


def _watch(model: Path, watched: Path) -> list[str]:
    """Write the graph with the largest magnitude of each half as a further output; their names."""
    import onnx
    from onnx import TensorProto, helper

    graph_of = onnx.load(model, load_external_data=False)
    graph = graph_of.graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(graph_of, strict_mode=True).graph.value_info
    }
    constant = {tensor.name for tensor in graph.initializer}
    names = []
    for node in list(graph.node):
        if all(name in constant for name in node.input):
            constant.update(node.output)
            continue
        names += [name for name in node.output if kinds.get(name) == TensorProto.FLOAT16]
    for name in names:
        wide, size = f"{_output(name)}/wide", f"{_output(name)}/size"
        graph.node.append(helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Abs", [wide], [size]))
        graph.node.append(helper.make_node("ReduceMax", [size], [_output(name)], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(_output(name), TensorProto.FLOAT, []))
    watched.write_bytes(graph_of.SerializeToString())
    return names


def _output(name: str) -> str:
    """What the graph is to give of a value."""
    return f"{name}/peak"
