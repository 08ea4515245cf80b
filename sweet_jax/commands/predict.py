r"""Answer a file, or standard input, with a trained model.

    python -m sweet_jax predict --model=RUN/model --threshold=0.9 --input=reviews.txt
    python -m sweet_jax predict --model=RUN/model --speedup=2 --input=a.csv \
        --output=b.jsonl
    cat reviews.txt | python -m sweet_jax predict --model=RUN/model
    python -m sweet_jax predict --model=RUN/model --input=reviews.txt --benchmark

An output file that is not finished is gone on with by the same command. Exit status: 0
finished, 2 a wrong input, 75 stopped by SIGTERM, ctrl-C or SIGHUP.
"""

from pathlib import Path

from absl import flags

from sweet_jax.commands.flags import run_command
from sweet_jax.system import process

_MODEL = flags.DEFINE_string("model", None, "WORKDIR/model of a run.", required=True)
_INPUT = flags.DEFINE_string("input", "-", "A file, or - for standard input.")
_OUTPUT = flags.DEFINE_string("output", "", "A .jsonl or .csv file; empty: the screen.")
_FORMAT = flags.DEFINE_string("format", "", "Of the input; empty: by its ending.")
_COLUMNS = flags.DEFINE_list("text_columns", [], "Of a table; empty: usual names.")
_CRITERION = flags.DEFINE_string("criterion", "confidence", "Whose score decides.")
_THRESHOLD = flags.DEFINE_float("threshold", None, "Leave at this score.")
_SPEEDUP = flags.DEFINE_float("speedup", None, "Choose a threshold for this speed-up.")
_MILLISECONDS = flags.DEFINE_float(
    "milliseconds", None, "Choose one for this mean time per input on this device."
)
_LOSS = flags.DEFINE_float(
    "max_accuracy_loss", None, "Choose one that loses so little, with probability 0.9."
)
_BATCH = flags.DEFINE_integer(
    "batch_size", 32, "Most rows at once.", lower_bound=1, upper_bound=1 << 16
)
# All rows of a chunk are in memory at once.
_CHUNK = flags.DEFINE_integer(
    "chunk_rows",
    4096,
    "Rows between two notes of what is done.",
    lower_bound=1,
    upper_bound=1 << 20,
)
_CSV_FORMULAS = flags.DEFINE_string(
    "csv_formulas",
    "escape",
    "escape: labels that a spreadsheet would run get an apostrophe in a csv; keep.",
)
_STRICT = flags.DEFINE_bool("strict", False, "Stop at a row that cannot be used.")
_BENCHMARK = flags.DEFINE_bool(
    "benchmark", False, "Only time the first rows: promised and measured speed-ups."
)


def main() -> None:
    """Answers, or times."""
    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.serving.predict_options import PredictOptions

    options = PredictOptions(
        source=_INPUT.value,
        output=Path(_OUTPUT.value) if _OUTPUT.value else None,
        input_format=_FORMAT.value,
        text_columns=tuple(_COLUMNS.value),
        targets={
            "threshold": _THRESHOLD.value,
            "speedup": _SPEEDUP.value,
            "milliseconds": _MILLISECONDS.value,
            "max_accuracy_loss": _LOSS.value,
        },
        criterion=_CRITERION.value,
        strict=_STRICT.value,
        chunk_rows=_CHUNK.value,
        csv_formulas=_CSV_FORMULAS.value,
        benchmark=_BENCHMARK.value,
    )
    options.check(Path(_MODEL.value))
    import sweet_jax
    from sweet_jax.devices import check_devices, configure_jax
    from sweet_jax.serving.predict_job import benchmark_file, predict_file

    check_devices()
    classifier = sweet_jax.load(_MODEL.value, batch_size=_BATCH.value)
    # Before anything is compiled: what is in the cache already is not compiled again.
    configure_jax(classifier.description.matmul_precision)
    if _BENCHMARK.value:
        for line in benchmark_file(classifier, options):
            process.say(line)
    else:
        process.tell(predict_file(classifier, options))


if __name__ == "__main__":
    run_command(main)
