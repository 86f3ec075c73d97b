"""What only the nodes of a Ray cluster import, since Ray is no part of the product."""
