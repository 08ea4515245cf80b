"""The classifier people use: every way to ask gives the same answers."""

import itertools
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sweet_jax
from benchmarks.tiny_model import WORDS, write_tiny_model
from sweet_jax.data.examples import Examples
from sweet_jax.engine.engine import CHUNK_BATCHES
from sweet_jax.exits.criteria import FULL
from sweet_jax.exits.temperatures import apply_temperatures
from sweet_jax.serving.classifier import AdaptiveClassifier

BATCH = 4


@pytest.fixture(scope="module")
def classifier(tiny_model) -> AdaptiveClassifier:
    return sweet_jax.load(tiny_model, batch_size=BATCH)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> AdaptiveClassifier:
    """A classifier of pairs."""
    folder = tmp_path_factory.mktemp("pairs") / "model"
    return sweet_jax.load(write_tiny_model(folder, has_pairs=True), batch_size=BATCH)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts of up to 7 words; with its special tokens each fits the first bucket."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(40)]


def assert_close(got, expected) -> None:
    """The same labels and exits; probabilities may depend on the batch by rounding."""
    got, expected = list(got), list(expected)
    assert [(p.label, p.exit, p.layers) for p in got] == [
        (p.label, p.exit, p.layers) for p in expected
    ]
    np.testing.assert_allclose(
        [p.probabilities for p in got], [p.probabilities for p in expected], atol=1e-6
    )


def test_every_kind_of_input_gives_the_same_answers(classifier, texts):
    expected = classifier.predict(texts, threshold=0.8)
    assert isinstance(expected, list)
    assert {p.exit for p in expected} == {0, 1}
    assert {p.layers for p in expected} == {1, 2}
    assert_close(classifier.predict(tuple(texts), threshold=0.8), expected)
    assert_close(classifier.predict(iter(texts), threshold=0.8), expected)
    for text, answer in zip(texts[:5], expected, strict=False):
        single = classifier.predict(text, threshold=0.8)
        assert isinstance(single, list)
        assert_close(single, [answer])
    assert classifier.predict([], threshold=0.8) == []


def test_probabilities_are_those_of_the_exit_that_answered(classifier, texts):
    zeros = np.zeros(len(texts), np.int64)
    examples = Examples(tuple(texts), None, zeros.astype(np.int32), zeros)
    logits_NEC = classifier.collect(examples).logits
    temperatures_E = np.array(classifier.description.temperatures, np.float32)
    scaled_NEC = np.asarray(apply_temperatures(logits_NEC, temperatures_E), np.float64)
    odds_NEC = np.exp(scaled_NEC)
    p_NEC = odds_NEC / odds_NEC.sum(axis=2, keepdims=True)
    for n, answer in enumerate(classifier.predict(texts, threshold=0.8)):
        np.testing.assert_allclose(
            answer.probabilities, p_NEC[n, answer.exit], atol=1e-5
        )
        assert answer.label == classifier.label_names[p_NEC[n, answer.exit].argmax()]


def test_a_generator_is_read_as_answers_are_taken(classifier, texts):
    read = itertools.count()

    def endless():
        for text in itertools.cycle(texts):
            next(read)
            yield text

    answers = classifier.predict(endless(), threshold=0.8)
    for _ in range(200):
        next(answers)
    answers.close()
    # What one look ahead holds, and texts that wait for others: three packed rows of
    # them before each segment.
    assert next(read) <= 200 + 3 * CHUNK_BATCHES * BATCH


def test_threads_get_the_same_answers(classifier, texts):
    expected = classifier.predict(texts, threshold=0.8)
    rows = classifier.stats["rows"]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(classifier.predict, texts, 0.8) for _ in range(8)]
        for future in asked:
            assert future.result() == expected
    assert classifier.stats["rows"] == rows + 8 * len(texts)


def test_it_says_what_it_is_and_what_it_did(tiny_model, texts):
    classifier = sweet_jax.load(str(tiny_model), batch_size=BATCH)
    text = repr(classifier)
    assert "early_exit on file" in text
    assert "labels negative, positive" in text
    assert classifier.stats["rows"] == 0
    answers = classifier.predict(texts[:8], threshold=0.8)
    stats = classifier.stats
    assert stats["rows"] == 8
    exits = [p.exit for p in answers]
    assert stats["exit_counts"] == [exits.count(0), exits.count(1)]
    assert stats["cost_fraction"] == np.mean([p.layers / 2 for p in answers])


def test_pairs(pairs):
    answers = pairs.predict([("good film", "bad film"), ("a", "the cast")])
    assert_close(pairs.predict(("good film", "bad film")), answers[:1])
    assert_close(pairs.predict((("good film", "bad film"),)), answers[:1])
    for single in ("good film", ["good film"]):
        with pytest.raises(ValueError, match=r"input 0 is not a .text, text. pair"):
            pairs.predict(single)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a", "b")], "input 0 is a tuple: this model takes single texts"),
        (["a", "", "b"], "input 1 is empty: leave it out"),
        ("", "input 0 is empty"),
        ([" \t"], "input 0 is empty"),
    ],
)
def test_wrong_texts_are_refused(classifier, texts, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.4}, "threshold=0.4 is outside the range of criterion=conf"),
        ({"threshold": 1.1}, "allowed is 0.5 to 1, or inf"),
        ({"threshold": float("nan")}, "threshold=nan is outside"),
        ({"threshold": 0.0, "criterion": "patience"}, r"threshold=0 is outside"),
        ({"criterion": "confidense"}, "did you mean confidence?"),
        ({"threshold": 0.5, "criterion": "lte"}, "no heads for them"),
        ({"threshold": 0.8, "speedup": 2.0}, "are conflicting targets"),
        ({"speedup": 0.0}, "speedup=0.0: allowed is a number above 0"),
        ({"speedup": 2.1}, "is out of reach: .* has a speed-up of 2; ask for at most"),
        ({"milliseconds": 1e-6}, "milliseconds=1e-06 is out of reach: .* ms per input"),
        ({"milliseconds": -1.0}, "milliseconds=-1.0: allowed is a number above 0"),
        ({"speedup": 1.5, "choose": "best"}, "choose='best': allowed are cost, score"),
        (
            {"max_accuracy_loss": 0.1, "choose": "score"},
            "choose=score is for a speedup or milliseconds: give one, or leave it out",
        ),
    ],
)
def test_wrong_questions_are_refused_before_texts_are_read(
    classifier, arguments, message
):
    def never():
        raise AssertionError("read")
        yield ""

    with pytest.raises(ValueError, match=message) as error:
        classifier.predict(never(), **arguments)
    assert "\n" not in str(error.value)


def test_a_speedup_takes_the_dearest_threshold_within_it(classifier, texts):
    bank = classifier.calibration.bank
    bests = {}
    for choose in ("cost", "score"):
        (bests[choose],) = classifier.choose_thresholds(("speedup", 1.4), choose=choose)
        answers = classifier.predict(texts, speedup=1.4, choose=choose)
        assert answers == classifier.predict(texts, threshold=bests[choose])
    # All 8 calibration rows: at most 3 of them may pass exit 0.
    scores_NE = classifier.calibration.apply(bank).score("confidence")
    assert np.count_nonzero(scores_NE[:, 0] < bests["cost"]) == 3
    assert classifier.choose_thresholds(("speedup", 1.0)) == (FULL,)


def test_a_choice_is_made_and_said_once(tiny_model, texts, caplog):
    classifier = sweet_jax.load(tiny_model)
    with caplog.at_level(logging.INFO, "sweet_jax"):
        for _ in range(3):
            classifier.predict(texts[:2], speedup=1.5)
    said = [line for line in caplog.messages if "1.5 asked" in line]
    assert len(said) == 1
    assert "(8 calibration rows)" in said[0]


def test_where_nothing_can_be_promised_every_layer_runs(tiny_model, texts, caplog):
    classifier = sweet_jax.load(tiny_model)
    with caplog.at_level(logging.WARNING, "sweet_jax"):
        answers = classifier.predict(texts[:4], max_accuracy_loss=0.01)
    assert {answer.exit for answer in answers} == {1}
    assert any("every exit runs: 4 calibration rows" in m for m in caplog.messages)


def test_long_texts_are_cut_and_that_is_said_once(tiny_model, caplog):
    classifier = sweet_jax.load(tiny_model, batch_size=BATCH)
    long = "good film " * 10_000
    with caplog.at_level(logging.WARNING, "sweet_jax"):
        answers = classifier.predict([long, "a plot", long])
        classifier.predict(long)
    assert_close(answers[:1], classifier.predict("good film " * 15))
    assert [r.message for r in caplog.records] == [
        "an input is longer than the 32 tokens that the model reads: such inputs are"
        " truncated, as in training (logged once)"
    ]


def test_strange_characters_are_answered_as_in_training(classifier):
    texts = ["good \x00 film\x07", "half \ud800 film", "\x1b", "🎬 \u2028 film"]
    answers = classifier.predict(texts)
    assert_close(answers[1:2], classifier.predict("half \ufffd film"))
