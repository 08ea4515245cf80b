"""The config files that come with the package: `--config=NAME`."""
