"""What every command needs of its machine: files, caches, signals, streams, network."""
