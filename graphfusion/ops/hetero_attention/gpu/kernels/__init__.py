"""The Triton kernels themselves, by how they look at pairs: one by one (`walk`), in tiles (`tiles`), in linear time (`scan`)."""
