"""Rows of a task from where they are published: embedded, files, hub, tfds.

Whatever the source, a split becomes a `Table` of strings first; `make_task` then
names the labels, checks what a person can get wrong, and makes arrays.
"""

from sweet_jax.data.embedded import load_embedded
from sweet_jax.data.examples import RawTask
from sweet_jax.data.files import load_files
from sweet_jax.data.hub import load_hub
from sweet_jax.data.tasks import get_task
from sweet_jax.data.tfds import load_tfds
from sweet_jax.settings import DataSettings


def load_task(settings: DataSettings) -> RawTask:
    """Returns the rows of `settings.task`.

    Raises:
        ValueError: the task is unknown or out of reach, or its rows cannot be used; one
            line with the file and the line or row.
    """
    task = get_task(settings.task)
    if task.kind == "embedded":
        return load_embedded(task)
    if task.kind == "file":
        return load_files(task, settings)
    if task.kind == "tfds":
        return load_tfds(task, settings)
    return load_hub(task, settings)
