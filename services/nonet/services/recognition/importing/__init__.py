"""Classifiers exported elsewhere: read by what their files say, tried on pictures, published."""
