"""Does all that a session does with a GPU, on the driver library that is named.

A process of its own, since the bindings keep the first library that they find:

    python -m tests.engines.use_driver DRIVER.so
"""

import ctypes
import sys

import numpy as np

from spd_deploy.domain.errors import EngineFailed, Unavailable
from spd_deploy.sessions.cuda.device import CudaDevice

SIZE = 1 << 16


def main(library: str) -> None:
    """Say what came of each step."""
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)  # whoever asks for its name is given it
    device = CudaDevice()
    print(f"{device.name}, {device.compute_capability}, CUDA {device.cuda}")
    address = device.allocate(SIZE)
    (there, sent), (back, got) = (device.allocate_pinned(SIZE) for _ in range(2))
    sent[:] = np.random.default_rng(0).integers(0, 256, SIZE)
    device.copy_in(address, there, SIZE)
    device.copy_out(back, address, SIZE)
    device.wait()
    whole = address > 1 << 32 and np.array_equal(got, sent)
    print(f"{SIZE} bytes there and back, from beyond 32 bits: {whole}")
    with device.capture() as made:
        pass
    with device.timer() as timer:
        with timer.around():
            device.launch(made[0])
        print(f"a graph took {timer.seconds():.4f} s")
    device.free_graph(made[0])
    for failing in (
        lambda: device.allocate(1 << 40),
        lambda: device.launch(1),
        lambda: device.free_graph(1),
    ):
        try:
            failing()
        except Unavailable as err:
            print(f"Unavailable: {err.what}")
        except EngineFailed as err:
            print(f"EngineFailed: {err.got}")
    try:
        with device.capture():
            raise RuntimeError("what failed in a capture is told as it is")
    except RuntimeError as err:
        print(f"RuntimeError: {err}")
    device.free(address)
    device.free_pinned(there)
    device.free_pinned(back)
    device.close()
    device.close()  # twice is once
    print("closed")


if __name__ == "__main__":
    main(sys.argv[1])
