r"""The messages of the Open Inference Protocol over gRPC.

``proto/open_inference_grpc.proto`` is KServe's file, unchanged, under the Apache License 2.0; its
head has the copyright. ``proto/messages.binpb`` is what protoc makes of both files:

    python -m grpc_tools.protoc -I serve/protocols/oip/proto \
        --descriptor_set_out serve/protocols/oip/proto/messages.binpb \
        open_inference_grpc.proto model_repository.proto

The classes are made when the server starts, in a pool of their own. Generated modules would
register the names of the messages for the whole process, where NVIDIA's client has the same names.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


@cache
def message(name: str) -> Any:
    """The class of a message, by its name in the package."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    """The descriptions of all messages."""
    found = descriptor_pb2.FileDescriptorSet.FromString(
        (files("serve") / "protocols" / "oip" / "proto" / "messages.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return pool
