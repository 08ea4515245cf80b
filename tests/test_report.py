"""Reports: made of files alone, whole, safe to open, and the same every time."""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweet_jax.report import (
    ReportError,
    comparison,
    files,
    format_summary,
    html,
    plots,
    style,
    tables,
    tradeoff,
    write_comparison,
    write_report,
)
from sweet_jax.report.__main__ import main

EXIT_LAYERS = (0, 1, 3, 5)


def _cascade(scores_NE, right_NE, costs_E, threshold) -> tuple[float, float, list[int]]:
    """Returns accuracy, cost and examples per exit, in the slow and obvious way."""
    leave = [
        next((i for i, s in enumerate(row[:-1]) if s >= threshold), len(row) - 1)
        for row in scores_NE
    ]
    accuracy = float(np.mean([right_NE[n, i] for n, i in enumerate(leave)]))
    counts = np.bincount(leave, minlength=len(costs_E))
    return accuracy, float(counts @ costs_E / counts.sum()), counts.tolist()


def _scores(probabilities_NEC: np.ndarray) -> dict[str, np.ndarray]:
    p = np.clip(probabilities_NEC, 1e-9, 1)
    ordered = np.sort(p, axis=-1)
    predicted = p.argmax(-1)
    runs = np.ones(predicted.shape)
    for i in range(1, predicted.shape[1]):
        same = predicted[:, i] == predicted[:, i - 1]
        runs[:, i] = np.where(same, runs[:, i - 1] + 1, 1)
    return {
        "confidence": ordered[..., -1],
        "entropy": 1 + (p * np.log(p)).sum(-1) / np.log(p.shape[-1]),
        "margin": ordered[..., -1] - ordered[..., -2],
        "patience": runs,
    }


def _reliability(confidence_N, right_N) -> dict[str, np.ndarray]:
    bins = np.minimum((confidence_N * 15).astype(int), 14)
    count = np.bincount(bins, minlength=15)
    means = []
    for values in (confidence_N, right_N):
        sums = np.bincount(bins, values, minlength=15)
        means.append(np.where(count > 0, sums / np.maximum(count, 1), np.nan))
    return {"confidence": means[0], "accuracy": means[1], "count": count}


def make_workdir(
    path: Path,
    num_classes: int = 2,
    seed: int = 0,
    exit_layers: tuple[int, ...] = EXIT_LAYERS,
    num_examples: int = 120,
    metrics: bool = True,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Writes a work directory whose numbers follow from one set of random logits."""
    rng = np.random.default_rng(seed)
    num_exits = len(exit_layers)
    method = changes.get("method", "sweet")
    labels = rng.integers(num_classes, size=num_examples)
    # Deeper exits see the label better; examples are harder or easier at all exits.
    ease = rng.normal(1, 1, size=(num_examples, 1))
    gain = np.linspace(1.0, 1.9, num_exits)
    logits = rng.normal(size=(num_examples, num_exits, num_classes))
    logits[np.arange(num_examples), :, labels] += gain * ease
    layers_run = np.array(exit_layers) + 1
    paid = np.cumsum(layers_run) if method == "multi_model" else layers_run
    costs = paid / layers_run[-1]

    def softmax(values: np.ndarray) -> np.ndarray:
        exponents = np.exp(values - values.max(-1, keepdims=True))
        return exponents / exponents.sum(-1, keepdims=True)

    probabilities = {"before": softmax(2 * logits), "after": softmax(logits)}
    right = logits.argmax(-1) == labels[:, None]
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, layer in enumerate(exit_layers):
        ece = {}
        for stage, p in probabilities.items():
            bins = _reliability(p[:, i].max(-1), right[:, i])
            gaps = np.nan_to_num(np.abs(bins["confidence"] - bins["accuracy"]))
            ece[stage] = float(gaps @ bins["count"] / num_examples)
            for name, values in bins.items():
                arrays[f"reliability/{stage}/exit_{i}/{name}"] = values
        chosen = probabilities["after"][np.arange(num_examples), i, labels]
        rows.append(
            {
                "exit": i,
                "layer": layer,
                "score": float(right[:, i].mean()),
                "accuracy": float(right[:, i].mean()),
                "nll": float(-np.log(chosen).mean()),
                "ece_before": ece["before"],
                "ece_after": ece["after"],
                "temperature": 2.0,
                "cost_fraction": float(costs[i]),
            }
        )
    curves, at_speedup, area = {}, {}, {}
    for criterion, scores in _scores(probabilities["after"]).items():
        low = 1 / num_classes if criterion == "confidence" else 0
        grid, dense = np.linspace(low, 1, 11), np.linspace(low, 1, 101)
        if criterion == "patience":
            grid = dense = np.arange(1.0, num_exits + 1)

        def sweep(thresholds, scores=scores):
            return [_cascade(scores, right, costs, t) for t in thresholds]

        # Every fourth value keeps the slow cascade quick; patience has few anyway.
        values = np.unique(scores[:, :-1])
        exact = np.append(values[:: 4 if len(values) > 9 else 1], np.inf)
        score, cost, _ = zip(*sweep(exact), strict=True)
        arrays[f"exact/{criterion}/threshold"] = exact
        arrays[f"exact/{criterion}/score"] = np.array(score)
        arrays[f"exact/{criterion}/cost_fraction"] = np.array(cost)
        points = sweep(grid)
        arrays[f"grid/{criterion}/threshold"] = grid
        arrays[f"grid/{criterion}/exit_counts"] = np.array([p[2] for p in points])
        arrays[f"share/{criterion}/threshold"] = dense
        counts = np.array([p[2] for p in sweep(dense)])
        arrays[f"share/{criterion}/share"] = counts / num_examples
        curves[criterion] = [
            {
                "threshold": float(t),
                "score": s,
                "accuracy": s,
                "cost_fraction": c,
                "speedup": 1 / c,
                "exit_counts": n,
            }
            for t, (s, c, n) in zip(grid, points, strict=True)
        ]
        at_speedup[criterion] = []
        for target in (1.5, 2.0, 3.0, 4.0, 100.0):
            reached = [k for k, c in enumerate(cost) if c <= 1 / target]
            if reached:
                k = max(reached, key=lambda k: score[k])
                point = (float(exact[k]), score[k], score[k], cost[k])
                oracle = score[k]
            else:
                point, oracle = (None,) * 4, None
            names = ("threshold", "score", "accuracy", "cost_fraction")
            at_speedup[criterion].append(
                {
                    "target": target,
                    **dict(zip(names, point, strict=True)),
                    "oracle": oracle,
                }
            )
        area[criterion] = float(np.mean(score))
    results = {
        "schema": 1,
        "method": method,
        "method_label": method,
        "boundary_gradient_scale": 0.0,
        "task": "rotten_tomatoes",
        "metric": "accuracy",
        "encoder": "minilm-l6",
        "seed": seed,
        "exit_layers": list(exit_layers),
        "num_layers": 6,
        "splits": {"train": 2000, "calibration": 1000, "test": num_examples},
        "notes": ["the test split is the published one"],
        "majority": 1 / num_classes,
        "full": rows[-1]["score"],
        "oracle_exit": {"score": 0.95, "cost_fraction": 0.31},
        "exits": rows,
        "curves": curves,
        "at_speedup": at_speedup,
        "area": area,
        "faithful_release": False,
        "cost_formula": "sum_i n_i (e_i + 1) / (N (e_last + 1))",
        "truncated_rows": {"train": 3, "test": 1},
        "padded_over_real": 1.27,
        "seconds": {"load": 2.1, "compile": 11.0, "train": 141.5, "evaluate": 4.2},
        "label_names": [f"class {c}" for c in range(num_classes)],
        "versions": {"sweet_jax": "0.1.0", "python": "3.11"},
        **changes,
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    config = {
        "schema": 1,
        "settings": {"seed": seed, "optim": {"clip_norm": 1.0, **(settings or {})}},
        # Digests of inputs follow the seed: they must not set seeds apart.
        "training": {"inputs.train": f"digest {seed}"},
    }
    (path / "config.json").write_text(json.dumps(config))
    np.savez(path / "curves.npz", **arrays)  # type: ignore[arg-type]
    if metrics:
        log = [
            {
                "step": step,
                "member": None,
                "epoch": step / 125,
                "loss": [
                    0.7 * np.exp(-step * (1 + i / 8) / 200) + 0.05 * rng.random()
                    for i in range(num_exits)
                ],
                "examples_per_second": 120.0,
                "learning_rate": 1e-4,
            }
            for step in range(1, 376)
        ]
        text = "".join(json.dumps(row) + "\n" for row in log)
        (path / "metrics.jsonl").write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished two-class run; tests copy it before they change it."""
    return make_workdir(tmp_path_factory.mktemp("runs") / "sweet-s0")


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change_results(workdir: Path, **changes: Any) -> dict[str, Any]:
    path = workdir / "results.json"
    results = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(results), encoding="utf-8")
    return results


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory) -> list[Path]:
    """The report files of the finished run; drawing takes seconds, so once."""
    return write_report(
        Path(shutil.copytree(finished, tmp_path_factory.mktemp("written") / "run"))
    )


def make_page(workdir: Path, tmp_path: Path) -> "Page":
    """Returns the page of a changed run with a stand-in for the slow pictures."""
    picture = style.Picture("speed_accuracy", "Title", "Caption", "Alt", b"")
    path = tmp_path / "page.html"
    page = html.make_report_html(files.read_run(workdir), [picture])
    path.write_text(page, encoding="utf-8")
    return Page(path)


class Page(HTMLParser):
    """Collects a page's tags and attributes; insists that every tag is closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps a tag and its attributes."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Insists on the order of closing."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keeps the text."""
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        """Returns the values of one attribute of all tags of a kind."""
        return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def test_report_never_imports_jax(workdir: Path):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['report', sys.argv[1]]\n"
        "try:\n"
        "    runpy.run_module('sweet_jax.report', run_name='__main__')\n"
        "except SystemExit as done:\n"
        "    assert done.code == 0, done.code\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'transformers', 'scipy', 'pandas'}\n"
        "print('HEAVY', sorted(heavy & sys.modules.keys()))\n"
        "print('OURS', sorted(m for m in sys.modules if m.startswith('sweet_jax')\n"
        "                     and not m.startswith('sweet_jax.report')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workdir)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(format_summary(files.read_results(workdir)))
    assert f"\nwrote {workdir / 'report.html'}\n" in done.stdout
    assert "HEAVY []" in done.stdout
    assert "OURS ['sweet_jax']" in done.stdout


def test_report_writes_the_pictures_and_the_page(written: list[Path]):
    workdir = written[-1].parent
    assert [path.relative_to(workdir).as_posix() for path in written] == [
        "plots/speed_accuracy.png",
        "plots/reliability.png",
        "plots/exits_by_threshold.png",
        "plots/training_loss.png",
        "report.html",
    ]
    for path in written[:-1]:
        width, height = png_size(path)
        assert width == style.DPI * style.WIDTH_INCHES
        assert 0.3 < height / width < 1.5
        assert path.stat().st_size > 10_000  # an empty canvas takes some 5 kB
    assert not list(workdir.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("num_classes", "exit_layers", "method", "logged"),
    [(2, (5,), "early_exit", False), (3, tuple(range(7)), "multi_model", True)],
)
def test_report_draws_any_number_of_exits(
    tmp_path: Path, num_classes, exit_layers, method, logged
):
    names = {"method": method, "method_label": method}
    make_workdir(tmp_path, num_classes, 1, exit_layers, 60, logged, **names)
    drawn = {path.stem for path in write_report(tmp_path)}
    assert len(drawn) == 4 + logged
    assert ("training_loss" in drawn) == logged
    summary = format_summary(files.read_results(tmp_path))
    assert max(map(len, summary.splitlines())) <= 100


def test_report_depends_on_known_fields_alone(workdir: Path, written: list[Path]):
    rows = [{**row, "energy": 1} for row in files.read_results(workdir)["exits"]]
    change_results(workdir, brand_new={"deep": [1]}, exits=rows)
    # The same bytes at another time, in another directory, with fields of the future.
    for mine, its in zip(write_report(workdir), written, strict=True):
        assert mine.read_bytes() == its.read_bytes(), mine.name


def test_page_is_self_contained(written: list[Path]):
    *pictures, path = written
    page = Page(path)
    assert "://" not in page.source
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in page.source
    assert "@import" not in page.source
    sources = page.values("img", "src")
    assert len(sources) == len(pictures)
    # Every picture is inline, bit for bit, wherever it stands.
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in sources)
    assert {base64.b64decode(s.removeprefix(prefix)) for s in sources} == {
        picture.read_bytes() for picture in pictures
    }
    assert all(len(alt) > 40 for alt in page.values("img", "alt"))
    assert not page.values("a", "href")


def test_page_shows_what_a_reader_needs(workdir: Path, tmp_path: Path):
    results = change_results(workdir, notes=["validation split used as test"])
    text = make_page(workdir, tmp_path).text
    for expected in (
        results["cost_formula"],
        "validation split used as test",
        f"{results['exits'][2]['score']:.3f}",
        f"{results['area']['margin']:.3f}",
        "optim.clip_norm",
        "class 0, class 1",
        "train 141.5",
    ):
        assert expected in text
    assert "faithful_release" not in text


def test_faithful_release_is_said_first(workdir: Path, tmp_path: Path):
    change_results(workdir, faithful_release=True)
    page = make_page(workdir, tmp_path)
    assert page.text.index("faithful_release") < page.text.index("Full depth")
    assert "faithful_release" in format_summary(files.read_results(workdir))


def test_page_escapes_everything_a_user_can_name(workdir: Path, tmp_path: Path):
    evil = "</td><script>alert(1)</script>\"'& 模型 $\\frac{$"
    change_results(
        workdir,
        label_names=[evil, "b"],
        notes=[evil],
        task=evil,
        encoder=evil,
        method_label=evil,
        cost_formula=evil,
        versions={evil: evil},
    )
    config = {"settings": {evil: evil}}
    (workdir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    page = make_page(workdir, tmp_path)
    assert "script" not in page.tags
    # Once per field, keys and values, and in title, heading and subtitle.
    assert page.text.count(evil) >= 9
    # And drawn: no formula, no glyph that the font lacks (a warning is an error here).
    with style.plot_style():
        tradeoff.plot_speed_accuracy(files.read_run(workdir))


def test_unreachable_speedups_are_said_to_be(finished: Path):
    results = files.read_results(finished)
    line = next(
        line
        for line in format_summary(results).splitlines()
        if line.startswith("confidence")
    )
    assert line.endswith("unreachable")
    assert line.count("@") == 4
    table = tables.make_speedup_table(results)
    assert ("confidence", "100x", "-", "unreachable", "-", "-", "-") in table.rows


def test_null_threshold_with_a_score_is_the_full_model(finished: Path):
    results = files.read_results(finished)
    results["at_speedup"]["margin"][0]["threshold"] = None
    row = next(r for r in tables.make_speedup_table(results).rows if r[0] == "margin")
    assert row[2] == "full"
    assert re.fullmatch(r"0\.\d{3}", row[3])


def test_summary_holds_every_number(finished: Path):
    results = files.read_results(finished)
    summary = format_summary(results)
    first, *_ = summary.splitlines()
    assert first == "rotten_tomatoes | minilm-l6 | sweet | seed 0"
    for row in results["exits"]:
        columns = " +".join(
            [
                rf"{row['exit']} +{row['layer']}",
                *(f"{row[name]:.3f}" for name in ("score", "nll")),
                f"{row['ece_before']:.3f} +{row['ece_after']:.3f}",
                f"{row['temperature']:.2f}",
                f"{row['cost_fraction']:.3f} +{1 / row['cost_fraction']:.2f}x",
            ]
        )
        assert re.search(rf"^ *{columns}$", summary, re.MULTILINE)
    point = results["at_speedup"]["patience"][1]
    assert f"{point['score']:.3f} @ {point['cost_fraction']:.3f}" in summary
    assert "majority class 0.500" in summary
    assert "oracle exit 0.950 @ 0.310" in summary
    assert f"cost: {results['cost_formula']}" in summary
    assert "note: the test split is the published one" in summary


def test_a_score_may_stand_in_an_object(finished: Path):
    results = files.read_results(finished)
    summary = format_summary(results)
    score = results["full"]
    results["full"] = {"score": score, "accuracy": 0.123}
    assert f"full depth {score:.3f}" in summary
    assert format_summary(results) == summary


def test_accuracy_stands_beside_another_score(finished: Path):
    results = files.read_results(finished)
    assert tables.make_exit_table(results).header.count("accuracy") == 1
    other = tables.make_exit_table({**results, "metric": "matthews"})
    assert other.header[2:4] == ("Matthews correlation", "accuracy")


def test_summary_fits_the_terminal(finished: Path):
    results = files.read_results(finished)
    points = [
        {**results["at_speedup"]["margin"][0], "target": 1 + i / 8} for i in range(15)
    ]
    results |= {
        "encoder": "/a/long/path" * 12,
        "notes": ["many words " * 40],
        "at_speedup": dict.fromkeys(results["at_speedup"], points),
    }
    summary = format_summary(results)
    assert max(map(len, summary.splitlines())) <= 100
    assert summary.count("2.75x") == 1
    # The names stand before every part of a table that goes on below.
    assert len(re.findall("^margin", summary, re.MULTILINE)) == 3


def test_members_log_their_own_exit(workdir: Path):
    rows = [
        {"step": step, "member": member, "loss": [0.5]}
        for member in ("member_0", "member_3")
        for step in (1, 2)
    ]
    log = workdir / "metrics.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = files.read_run(workdir)
    series = plots.collect_losses(run.metrics, run.num_exits)
    assert series == [[(1, 0.5), (2, 0.5)], [], [], [(1, 0.5), (2, 0.5)]]
    assert plots.plot_training_loss(run).png


def test_criteria_with_the_same_curve_share_a_panel(finished: Path, tmp_path: Path):
    run = files.read_run(finished)
    assert tradeoff.group_criteria([run]) == [
        ["confidence", "entropy", "margin"],
        ["patience"],
    ]
    three = files.read_run(make_workdir(tmp_path, num_classes=3))
    assert len(tradeoff.group_criteria([three])) == 4
    assert len(tradeoff.group_criteria([run, three])) == 4


def test_exit_colors_darken_with_depth():
    for num_exits in (1, 4, 24):
        colors = np.array(style.exit_colors(num_exits))[:, :3]
        luminance = colors @ [0.299, 0.587, 0.114]
        assert (np.diff(luminance) < 0).all()


def _break_schema(workdir: Path) -> None:
    change_results(workdir, schema=2)


def _break_json(workdir: Path) -> None:
    path = workdir / "results.json"
    path.write_text(path.read_text()[:500])


def _break_fields(workdir: Path) -> None:
    results = files.read_results(workdir)
    del results["area"], results["majority"]
    (workdir / "results.json").write_text(json.dumps(results))


def _break_exits(workdir: Path) -> None:
    results = files.read_results(workdir)
    change_results(workdir, exits=[{"exit": 0}, *results["exits"][1:]])


def _break_finish(workdir: Path) -> None:
    (workdir / "results.json").unlink()


def _break_everything(workdir: Path) -> None:
    for path in workdir.iterdir():
        path.unlink()


def _break_directory(workdir: Path) -> None:
    shutil.rmtree(workdir)


def _break_kind(workdir: Path) -> None:
    shutil.rmtree(workdir)
    workdir.write_text("a file")


def _break_curves(workdir: Path) -> None:
    path = workdir / "curves.npz"
    path.write_bytes(path.read_bytes()[:2000])


def _break_array(workdir: Path) -> None:
    with np.load(workdir / "curves.npz") as arrays:
        kept = {n: arrays[n] for n in arrays.files if n != "share/margin/share"}
    np.savez(workdir / "curves.npz", **kept)  # type: ignore[arg-type]


def _break_missing_curves(workdir: Path) -> None:
    (workdir / "curves.npz").unlink()


def _break_log(workdir: Path) -> None:
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 37')


def _break_config(workdir: Path) -> None:
    (workdir / "config.json").write_text("[]")


def _break_settings(workdir: Path) -> None:
    (workdir / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_break_schema, "has schema 2, this version reads up to 1: update"),
        (_break_json, "results.json is damaged"),
        (_break_fields, "results.json lacks area, majority: "),
        (_break_exits, "lacks accuracy, cost_fraction, .* in exits"),
        (_break_finish, "holds an unfinished run"),
        (_break_everything, "is not a work directory"),
        (_break_directory, "does not exist"),
        (_break_kind, "is not a directory"),
        (_break_curves, "curves.npz is damaged"),
        (_break_array, "curves.npz lacks share/margin/share: "),
        (_break_missing_curves, "has no curves.npz"),
        (_break_log, "metrics.jsonl line 376 is not JSON"),
        (_break_config, "config.json is damaged"),
        (_break_settings, "config.json is damaged"),
    ],
)
def test_bad_input_is_one_line_and_status_2(workdir, capsys, break_it, message):
    break_it(workdir)
    assert main([str(workdir)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(rf"error: .*{message}.*\n", errors), errors
    if workdir.is_dir():
        # Half a report would be taken for a whole one.
        assert not (workdir / "report.html").exists()


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[Path]:
    """Two methods with two seeds each, and one run of a third."""
    base = tmp_path_factory.mktemp("study")
    return [
        make_workdir(
            base / f"{method}{seed}",
            seed=seed,
            num_examples=60,
            method=method,
            method_label=method,
        )
        for method, seed in (
            ("sweet", 0),
            ("early_exit", 0),
            ("sweet", 1),
            ("early_exit", 1),
            ("multi_model", 0),
        )
    ]


def test_comparison_overlays_runs(study, tmp_path: Path, capsys):
    output = tmp_path / "out"
    assert main([*map(str, study), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-3])) <= 100
    assert png_size(output / "plots" / "speed_accuracy.png")[0] == 1600
    page = Page(output / "comparison.html")
    assert "://" not in page.source
    assert len(page.values("img", "src")) == 1
    assert "cost of multi_model" in page.text
    runs = [files.read_run(path) for path in study]
    exits, *speedups = comparison.make_comparison(runs).tables
    assert [row[:2] for row in exits.rows] == [
        ("sweet", "0"),
        ("sweet", "1"),
        ("sweet", "mean of 2"),
        ("early_exit", "0"),
        ("early_exit", "1"),
        ("early_exit", "mean of 2"),
        ("multi_model", "0"),
    ]
    assert exits.strong_rows == {2, 5}
    pair = [runs[i].results["exits"][0]["score"] for i in (0, 2)]
    mean, deviation = np.mean(pair), np.std(pair, ddof=1)
    assert exits.rows[2][2] == f"{mean:.3f} ±{deviation:.3f}"
    assert speedups[0].header[-1] == "area"
    area = runs[4].results["area"]["confidence"]
    assert speedups[0].rows[-1][-1] == f"{area:.3f}"
    record = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert record["task"] == "rotten_tomatoes"
    assert len(record["runs"]) == 5


def test_comparison_never_overwrites_another(study, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, first = write_comparison(study[:2])
    runs = [files.read_run(path) for path in study]
    assert comparison.choose_target(runs[1:3], None) != first[0].parent
    assert re.fullmatch(r"comparison-rotten_tomatoes-\w{8}", first[0].parent.name)
    # The same runs again, in whatever order, are the same comparison.
    _, again = write_comparison([study[1], study[0]], first[0].parent)
    assert again == first
    assert comparison.choose_target([runs[1], runs[0]], None) == first[0].parent
    with pytest.raises(ReportError, match="comparison of other runs"):
        write_comparison(study[:3], first[0].parent)
    with pytest.raises(ReportError, match="holds other files"):
        write_comparison(study[:2], study[0])
    with pytest.raises(ReportError, match="is a file"):
        write_comparison(study[:2], study[0] / "results.json")
    with pytest.raises(NotADirectoryError):
        write_comparison(study[:2], study[0] / "results.json" / "inside")
    (first[0].parent / "comparison.json").write_text("{}")
    with pytest.raises(ReportError, match="comparison of other runs"):
        write_comparison(study[:2], first[0].parent)


def test_comparison_refuses_what_shares_no_axis(study, workdir, tmp_path, capsys):
    output = tmp_path / "out"
    change_results(workdir, task="rte")
    assert main([str(study[0]), str(workdir), "--output", str(output)]) == 2
    assert re.fullmatch(
        r"error: task differs \(rotten_tomatoes in .*, rte in .*\): .*\n",
        capsys.readouterr().err,
    )
    change_results(workdir, task="rotten_tomatoes", metric="f1")
    with pytest.raises(ReportError, match=r"metric differs \(accuracy in .*, f1 in"):
        write_comparison([study[0], workdir], output)
    with pytest.raises(ReportError, match="is given twice"):
        write_comparison([study[0], study[0] / ".." / study[0].name], output)
    assert not output.exists()
    assert main([str(workdir), "--output", str(output)]) == 2


def test_only_seeds_are_averaged(study, tmp_path: Path):
    def labels(*paths: Path) -> list[tuple[str, int]]:
        groups = comparison.group_runs([files.read_run(path) for path in paths])
        return [(group.label, len(group.runs)) for group in groups]

    assert labels(*study) == [("sweet", 2), ("early_exit", 2), ("multi_model", 1)]
    sweet = {"method_label": "sweet", "num_examples": 60}
    other = make_workdir(
        tmp_path / "norm", seed=3, settings={"clip_norm": 2.0}, **sweet
    )
    assert labels(study[0], study[2], other) == [
        ("sweet, optim.clip_norm=1", 2),
        ("sweet, optim.clip_norm=2", 1),
    ]
    again = make_workdir(tmp_path / "again", seed=0, **sweet)
    assert labels(study[0], again) == [("sweet, sweet0", 1), ("sweet, again", 1)]
    wide = make_workdir(tmp_path / "wide", seed=4, encoder="bge-small", **sweet)
    assert labels(study[0], wide) == [("sweet, minilm-l6", 1), ("sweet, bge-small", 1)]
    notes = comparison.make_notes([files.read_run(study[0]), files.read_run(wide)])
    assert "the runs differ in encoder" in notes


def test_comparison_notes_other_test_rows(study, workdir: Path):
    splits = {"train": 2000, "calibration": 1000, "test": 17}
    change_results(workdir, splits=splits)
    notes = comparison.make_notes([files.read_run(study[0]), files.read_run(workdir)])
    assert any("different numbers of test rows" in note for note in notes)


def test_line_looks_stay_apart():
    labels = [*style.METHOD_COLORS, *(f"sweet(a=.{i})" for i in range(15))]
    looks = style.label_lines(labels)
    assert len(set(looks.values())) == len(labels)
    assert looks["sweet"] == (style.METHOD_COLORS["sweet"], "-")
