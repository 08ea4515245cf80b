"""Segments as programs: any batch and length, in order the model, and nothing else."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from dense_model import EXIT_LAYERS, VOCABULARY, make_dense_model
from jax import export

from sweet_jax.arrays import Batch
from sweet_jax.export.programs import PLATFORMS, TOKENS, Program, export_programs
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import join_models, split_model
from sweet_jax.trees import flatten_paths, unflatten_paths

CLASSES, LONGEST = 2, 12


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """A model with its parameters by path, and its programs."""

    model: Any
    flat: dict[str, np.ndarray]
    programs: list[Program]


def make(kind: str) -> Exported:
    model = make_dense_model()
    if kind == "learns":
        settings = dataclasses.replace(model.settings, learn_to_exit=True)
        model = model.clone(settings=settings)
    members = ((0,), (1,), (2,)) if kind == "multi_model" else ((0, 1, 2),)
    model = model.clone(shared_pooler=kind == "shared_pooler")
    parts = split_model(model, members, False)
    rng = np.random.default_rng(0)
    flat = {
        f"member_{i}/{path}" if len(parts) > 1 else path: rng.normal(
            0, 0.5, leaf.shape
        ).astype(np.float32)
        for i, part in enumerate(parts)
        for path, leaf in flatten_paths(compute_shapes(part)).items()
    }
    joined = join_models(parts)
    programs = export_programs(
        joined, unflatten_paths(flat), EXIT_LAYERS, CLASSES, LONGEST
    )
    return Exported(joined, flat, programs)


@pytest.fixture(
    scope="module", params=["plain", "learns", "multi_model", "shared_pooler"]
)
def exported(request) -> Exported:
    return make(request.param)


def make_tokens(rng: np.random.Generator, num_rows: int, length: int) -> Any:
    ids = rng.integers(0, VOCABULARY, (num_rows, length)).astype(np.int32)
    mask = (np.arange(length) < rng.integers(1, length + 1, (num_rows, 1))).astype(
        np.int32
    )
    return {"token_ids": ids, "type_ids": 0 * ids, "mask": mask}


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, LONGEST)])
def test_programs_in_order_are_the_model(exported, rng, shape):
    state: dict[str, Any] = make_tokens(rng, *shape)
    row = np.zeros(shape[0], np.int32)
    batch = Batch(*(state[n] for n in TOKENS), row, row.astype(np.float32), row)
    params = unflatten_paths(exported.flat)
    outputs: Any = exported.model.apply({"params": params}, batch)
    for program, output in zip(exported.programs, outputs, strict=True):
        weights = {path: exported.flat[path] for path in program.weights}
        state |= program.exported.call(
            weights, {name: state[name] for name in program.inputs}
        )
        np.testing.assert_allclose(state["logits"], output.logits_BC, atol=1e-5)
        assert ("lte" in state) == (output.lte_B is not None)
        if output.lte_B is not None:
            np.testing.assert_allclose(state["lte"], output.lte_B, atol=1e-5)


def test_every_weight_is_read_by_its_own_segment(exported):
    read = [set(program.weights) for program in exported.programs]
    assert set.union(*read) == set(exported.flat)
    of_all = set.intersection(*read)
    assert {path.rpartition("/")[0] for path in of_all} <= {"exits/pooler"}
    assert sum(len(paths - of_all) for paths in read) + len(of_all) == len(
        exported.flat
    )
    for program in exported.programs:
        assert list(program.weights) == sorted(program.weights)


def test_names_are_those_of_arguments_and_results_in_order(exported):
    for program in exported.programs:
        shapes = [exported.flat[path].shape for path in program.weights]
        shapes += [spec.shape for spec in program.inputs.values()]
        assert [aval.shape for aval in program.exported.in_avals] == shapes
        results = [spec.shape for spec in program.outputs.values()]
        assert [aval.shape for aval in program.exported.out_avals] == results
        assert list(program.inputs) == sorted(program.inputs)
        assert program.exported.platforms == PLATFORMS
        logits = program.outputs["logits"]
        assert (str(logits.shape[0]), logits.shape[1]) == ("batch", CLASSES)


def test_a_state_holds_what_later_segments_read_and_no_more(exported):
    """Labels are nobody's; what a segment leaves as it was is no result of it."""
    first, *_, last = exported.programs
    assert set(first.inputs) <= set(TOKENS)
    for program in exported.programs:
        assert not {"labels", "weights", "row_ids"} & set(program.inputs)
        assert not set(TOKENS) & set(program.outputs)
    assert set(last.outputs) <= {"logits", "lte"}


def test_a_program_itself_refuses_more_tokens_than_training_saw(rng):
    """The encoder has 16 positions, the model was trained on 12."""
    exported = make("plain")
    program = exported.programs[0]
    weights = {path: exported.flat[path] for path in program.weights}
    # As a file has it.
    read = export.deserialize(bytearray(program.exported.serialize()))
    for length in (LONGEST, LONGEST + 1):
        tokens = make_tokens(rng, 2, length)
        state = {name: tokens[name] for name in program.inputs}
        if length == LONGEST:
            read.call(weights, state)
            continue
        with pytest.raises(ValueError, match="Error refining shapes"):
            read.call(weights, state)


def test_programs_say_nothing_of_this_machine(exported):
    for program in exported.programs:
        assert b"sweet_jax/" not in bytes(program.exported.serialize())


def test_what_jax_says_of_sources_is_as_before_whatever_happens(monkeypatch):
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    seen = []

    def fail(*args: Any, **options: Any) -> Any:
        seen.append(getattr(jax.config, name))
        raise RuntimeError("stopped")

    monkeypatch.setattr(export, "export", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        make("plain")
    assert seen == [0]
    assert getattr(jax.config, name) == before != 0
