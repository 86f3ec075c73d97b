"""The core of the gateway: the one path of a request, and what decides on it. Free of any transport."""
