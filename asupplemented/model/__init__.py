"""Values of the field: digests, platforms, descriptors, names, manifests. No I/O."""
