"""What a hostile pickle holds, for tests that none is ever loaded as such."""

from pathlib import Path


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        """Names the file."""
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))
