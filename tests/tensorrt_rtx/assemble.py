"""A module ``tensorrt`` whose parser and builder work on a machine without a GPU.

TensorRT itself makes no builder without a driver. TensorRT for RTX does, and has the same interface
in C++; so NVIDIA's Python bindings of TensorRT find it where they look for TensorRT. The two were
not made for each other: what the tests call was seen to fit, and some of the rest does not (adding
a plugin crashes). An engine that comes of it runs on RTX cards alone, and is read nowhere else.

``make test-tensorrt`` installs both packages into a folder and runs this on it.
"""

import subprocess
import sys
from pathlib import Path

MAJOR = 11
_LIBRARIES = {
    "libnvinfer.so": "libtensorrt_rtx.so.*",
    "libnvonnxparser.so": "libtensorrt_onnxparser_rtx.so.*",
}
# The bindings want this library for one function, which registers plugins that nothing here uses.
_PLUGINS = "int initLibNvInferPlugins(void *logger, const char *space) { return 1; }\n"
_MODULE = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


def main(folder: Path) -> None:
    """Put ``tensorrt`` and, in ``lib``, the libraries it asks for into ``folder``."""
    libraries = folder / "lib"
    libraries.mkdir(exist_ok=True)
    for name, found in _LIBRARIES.items():
        (library,) = folder.glob(f"onnxruntime_ep_nv_tensorrt_rtx/{found}")
        link = libraries / f"{name}.{MAJOR}"
        link.unlink(missing_ok=True)
        link.symlink_to(library.resolve())
    plugins = libraries / f"libnvinfer_plugin.so.{MAJOR}"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(plugins)]
    subprocess.run(compiler, input=_PLUGINS, text=True, check=True)
    module = folder / "tensorrt"
    module.mkdir(exist_ok=True)
    (module / "__init__.py").write_text(_MODULE, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
