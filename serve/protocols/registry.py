"""The protocols that the server speaks.

No two of them may have a handler of the same method and path. Of two paths with parameters that fit
a request, the first in order answers.
"""

from serve.protocol import HttpProtocol
from serve.protocols.kserve import KServe
from serve.protocols.native import Native
from serve.protocols.oip.oip_rest import OpenInference
from serve.protocols.operations import Operations
from serve.protocols.tei.tei import Tei
from serve.protocols.vllm.vllm import Vllm

PROTOCOLS: tuple[type[HttpProtocol], ...] = (
    Native,
    Tei,
    Vllm,
    KServe,
    OpenInference,
    Operations,
)
