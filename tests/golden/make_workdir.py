"""Records how the first version described a run: `workdir.json`.

    cd tests && python -m golden.make_workdir

The file holds the config.json of the default settings and the digests that banks and
results carry. Settings have gained fields since (`settings.ADDED_FIELDS`); a run that
leaves them alone must still write the same, or finished runs would be lost. So this
script writes the same file as then, and a file that it changes is a defect.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from sweet_jax.files import read_json
from sweet_jax.resolve import from_config_dict
from sweet_jax.settings import Settings
from sweet_jax.workdir import Workdir

PATH = Path(__file__).with_name("workdir.json")
# Digests of inputs: any text.
INPUTS = {"encoder_weights": "0123456789abcdef", "train_rows": "fedcba9876543210"}


def make_settings(**fields: Any) -> Settings:
    """Returns the default settings, with the exits that `prepare` fills in."""
    return from_config_dict({"exits": {"layers": (0, 1, 3, 5)}} | fields)


def record() -> dict[str, Any]:
    """Returns what the file holds."""
    with tempfile.TemporaryDirectory() as folder:
        work = Workdir(Path(folder) / "run", make_settings(), INPUTS, writes=True)
        work.close()
        return {
            "config": read_json(work.path / "config.json"),
            "training_digest": work.training_digest,
            "evaluation_digest": work.evaluation_digest,
        }


if __name__ == "__main__":
    PATH.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
