"""The gateway: every request over REST and gRPC, admitted, cached, scheduled and answered."""
