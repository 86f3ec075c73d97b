"""A service that lives under the tests: proof that a new task is one folder and a method in a ``.proto``."""
