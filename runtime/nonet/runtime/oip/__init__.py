"""Open Inference Protocol, version 2: codecs between its JSON and protobuf forms and Nonet's requests.

messages        message classes of the `.proto` contracts, in a pool of their own
fields          single fields of unchecked requests: names, types, shapes, parameters
raw             tensors as raw bytes
json_values     tensors as JSON values
shared_memory   tensors in the caller's shared memory
json_codec      REST bodies, with or without binary tensor data
proto_codec     gRPC messages
validation      a request against its model, an answer against its model
finite          NaN and infinity
classification  the classification extension
metadata        what the protocol tells of server and models
"""
