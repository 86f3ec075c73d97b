"""The contracts of the gRPC face, as `.proto` files and as one compiled descriptor set beside them.

Message classes are made from that set at run time (see `nonet.runtime.oip.messages`), so neither a protobuf
compiler nor generated code is needed to serve. After an edit: ``python -m nonet.proto.compile``.
"""
