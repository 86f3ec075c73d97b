"""The task API: from fields and a file to a model and back, over REST and over gRPC; and its pages."""
