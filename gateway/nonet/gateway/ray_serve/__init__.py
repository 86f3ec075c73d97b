"""Services on a Ray cluster: what its ingress takes, and a service as a replica there."""
