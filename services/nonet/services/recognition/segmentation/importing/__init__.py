"""Networks of masks that were made elsewhere: read, tried on pictures, published."""
