"""Refuses a graph whose fp16 values overflow on the golden inputs.

On a CPU, ONNX Runtime computes fp16 operators in fp32 and rounds where it likes. So an overflow on
a GPU need not show in its logits. Therefore a copy of the graph gives the largest magnitude of
every fp16 value as a further output.
"""

from pathlib import Path

from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.golden import Golden
from spd_deploy.sessions.onnxruntime import OnnxSession

FP16_MAX = 65504.0  # the largest finite fp16 number
_OBSERVED = "observed.onnx"  # beside the graph, whose weights it shares; deleted afterwards


def largest_fp16_value(model: Path, golden: Golden) -> float:
    """The largest magnitude of an fp16 value on the golden inputs; 0 where no value is fp16.

    Raises:
        VerificationFailed: a value overflows fp16.
    """
    observed = model.with_name(_OBSERVED)
    try:
        names = _add_outputs(model, observed)
        if not names:
            return 0.0
        with OnnxSession(observed, precision="fp16") as session:
            values = session.values([_output(name) for name in names], golden.batch)
    finally:
        observed.unlink(missing_ok=True)
    peaks = {name: float(value) for name, value in zip(names, values, strict=True)}
    # NaN comes from an overflow too, and ``not NaN <= x`` is true.
    over = [name for name, peak in peaks.items() if not peak <= FP16_MAX]
    if over:
        raise VerificationFailed(
            f"the model overflows fp16, whose largest number is {FP16_MAX:.0f}",
            got=f"{peaks[over[0]]:.4g} in {over[0]}",
            fix="nothing was written; export with --precision fp32",
        )
    return max(peaks.values())


def _add_outputs(model: Path, observed: Path) -> list[str]:
    """Write the graph with one further output for each fp16 value; returns the values' names."""
    import onnx
    from onnx import TensorProto, helper

    onnx_model = onnx.load(model, load_external_data=False)
    graph = onnx_model.graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(
            onnx_model, strict_mode=True
        ).graph.value_info
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
    observed.write_bytes(onnx_model.SerializeToString())
    return names


def _output(name: str) -> str:
    """The name of the output that gives a value's largest magnitude."""
    return f"{name}/peak"
