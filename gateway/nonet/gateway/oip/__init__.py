"""The Open Inference Protocol (version 2) as the gateway speaks it: over REST and over gRPC."""
