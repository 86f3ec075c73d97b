"""Every setting of the gateway: its sections, their layers, the topology file, the reference page."""
