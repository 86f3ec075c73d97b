"""The ``nonet`` command."""
