"""`convert --export`: from a model folder to an encoder that PyTorch loads."""

from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from tiny_models import DESCRIPTION, write_model_folder

from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.huggingface.config import load_config
from sweet_jax.huggingface.safetensors import load_encoder
from sweet_jax.serving.load import load
from sweet_jax.trees import flatten_paths

TWO_MODELS = ((0,), (1,))


@pytest.fixture
def write_model(tmp_path, tiny_encoder, tiny_mpnet, tiny_modernbert, tiny_deberta):
    """Returns (family, changes) -> a model folder of random weights, and these."""
    sources = {
        "bert": tiny_encoder,
        "mpnet": tiny_mpnet,
        "modernbert": tiny_modernbert,
        "deberta-v2": tiny_deberta,
    }

    def write(family: str = "bert", **changes):
        folder = tmp_path / "run" / "model"
        return folder, write_model_folder(folder, sources[family], **changes)

    return write


def export(capsys, *arguments) -> str:
    """Runs the command and returns what it printed; it must succeed."""
    assert run_command("convert", "--export", *map(str, arguments)) == 0
    return capsys.readouterr().out


def check_equal(
    out: Path, depth: int, flat: dict[str, np.ndarray], prefix: str
) -> None:
    """The folder holds exactly `depth` layers with the weights under `prefix`."""
    config = load_config(out)
    assert config.num_layers == depth
    got = flatten_paths(load_encoder(out, config, depth).encoder)
    assert {path.split("/")[0] for path in got} >= {f"layer_{depth - 1}"}
    for path, leaf in got.items():
        np.testing.assert_array_equal(leaf, flat[f"{prefix}encoder/{path}"])


@pytest.mark.parametrize(("number", "depth"), [(None, 3), (0, 1)])
def test_the_encoder_up_to_an_exit(write_model, tmp_path, capsys, number, depth):
    folder, flat = write_model()
    choice = [] if number is None else ["--exit", number]
    # The work directory does as well as its model folder.
    printed = export(capsys, folder.parent, tmp_path / "out", *choice)
    assert f"bert, {depth} layers" in printed
    assert "without a pooler" in printed  # it reads means, theirs the first token
    check_equal(tmp_path / "out", depth, flat, "")
    assert load_tokenizer(tmp_path / "out", 32).pad_token == "[PAD]"
    assert (
        load_encoder(tmp_path / "out", load_config(tmp_path / "out"), 1).pooler is None
    )


@pytest.mark.parametrize(("number", "depth"), [(0, 1), (1, 3)])
def test_a_multi_model_exports_the_encoder_of_the_exit(
    write_model, tmp_path, capsys, number, depth
):
    folder, flat = write_model(
        method="multi_model", member_exits=TWO_MODELS, separate_tables=False
    )
    export(capsys, folder, tmp_path / "out", "--exit", number)
    check_equal(tmp_path / "out", depth, flat, f"member_{number}/")


def test_poolers_of_first_tokens_come_along(write_model, tmp_path, capsys):
    folder, flat = write_model(pooling="cls")
    export(capsys, folder, tmp_path / "out", "--exit", 0)
    pooler = load_encoder(tmp_path / "out", load_config(tmp_path / "out"), 1).pooler
    assert pooler is not None
    for name in ("kernel", "bias"):
        want = flat[f"exits/exit_0/pooler/{name}"]
        np.testing.assert_array_equal(pooler[name], want)


def test_the_norm_of_the_exit_comes_along(write_model, tmp_path, capsys):
    folder, flat = write_model("modernbert", pooling="cls")
    printed = export(capsys, folder, tmp_path / "out", "--exit", 0)
    assert "without a pooler" in printed  # the family has none
    loaded = load_encoder(tmp_path / "out", load_config(tmp_path / "out"), 1)
    assert loaded.final_norm is not None
    want = flat["exits/exit_0/norm/scale"]
    np.testing.assert_array_equal(loaded.final_norm["scale"], want)


def test_tables_that_drifted_apart_are_refused_but_not_before_they_part(
    write_model, tmp_path, capsys
):
    folder, flat = write_model("mpnet")
    assert run_command("convert", "--export", str(folder), str(tmp_path / "out")) == 2
    assert "segments have trained tables of their own" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    export(capsys, folder, tmp_path / "out", "--exit", 0)
    check_equal(tmp_path / "out", 1, flat, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "is not a model folder"),
        (["run", "out", "--exit", "2"], "has no exit 2: its exits are 0 to 1"),
        (["run", "taken"], r"taken has a model.safetensors already"),
    ],
)
def test_wrong_input_is_one_line(
    write_model, tmp_path, capsys, monkeypatch, arguments, message
):
    write_model()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "model.safetensors").write_bytes(b"")
    assert run_command("convert", "--export", *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_in_the_target_is_replaced(write_model, tmp_path, capsys):
    folder, _ = write_model()
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("mine")
    assert run_command("convert", "--export", str(folder), str(out)) == 2
    assert "has a tokenizer.json already" in capsys.readouterr().err
    assert [file.read_text() for file in out.iterdir()] == ["mine"]
    (out / "tokenizer.json").rename(tmp_path / "kept")
    export(capsys, folder, out)
    assert all(file.stat().st_mode & 0o444 for file in out.iterdir())


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert", "deberta-v2"])
def test_pytorch_computes_the_same_states(write_model, tmp_path, capsys, family):
    import torch
    import transformers

    folder, flat = write_model(family, separate_tables=False)
    export(capsys, folder, tmp_path / "out")
    model, remarks = transformers.AutoModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    # PyTorch's own pooler is not in the folder; everything else must be.
    assert all("pooler" in key for key in remarks["missing_keys"])
    assert not remarks["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["a good film", "the plot"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        want = model.eval()(**inputs).last_hidden_state.numpy()
    real = inputs["attention_mask"].numpy()[..., None]
    pooled = (want * real).sum(1) / real.sum(1)
    exit_1 = {
        path.removeprefix("exits/exit_1/"): leaf
        for path, leaf in flat.items()
        if path.startswith("exits/exit_1/")
    }
    hidden = np.tanh(pooled @ exit_1["pooler/kernel"] + exit_1["pooler/bias"])
    logits = hidden @ exit_1["classifier/kernel"] + exit_1["classifier/bias"]
    logits /= DESCRIPTION.temperatures[1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    got = [prediction.probabilities for prediction in load(folder).predict(texts)]
    np.testing.assert_allclose(got, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
