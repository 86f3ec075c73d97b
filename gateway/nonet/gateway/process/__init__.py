"""The processes of the gateway: composed from settings, started, served, stopped."""
