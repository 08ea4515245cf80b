"""Operating system services: files, caches, signals, streams, network."""
