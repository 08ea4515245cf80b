"""The exported model in PyTorch; needs torch, safetensors and transformers.

    from reader import MultiExitModel
    logits = MultiExitModel("FOLDER/pytorch")(input_ids, attention_mask)

A reference implementation that runs every exit on every row. Divide the logits of an
exit by its temperature (manifest.json) before you compare exits.
"""

import copy
from pathlib import Path

import checks
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel


class Exit(nn.Module):
    """classifier(activation(pooler(pool(norm(states)))))."""

    def __init__(self, norm: nn.Module, width: int, manifest: dict) -> None:
        """Makes the modules; `norm` is the encoder's final norm or the identity."""
        super().__init__()
        self.norm, self.pooling = copy.deepcopy(norm), manifest["pooling"]
        activations = {"tanh": torch.tanh, "gelu": nn.functional.gelu}
        self.activation = activations[manifest["pooler_activation"]]
        self.pooler, self.classifier = (
            nn.Linear(width, width),
            nn.Linear(width, len(manifest["label_names"])),
        )

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, C] of states [B, L, D]."""
        x, real = self.norm(states), mask[..., None].float()
        mean = (x * real).sum(1) / real.sum(1)
        pooled = mean if self.pooling == "mean" else x[:, 0]
        return self.classifier(self.activation(self.pooler(pooled)))


class MultiExitModel(nn.Module):
    """The encoder (for multi_model, one per exit) and the exits."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the `pytorch` folder and the manifest beside it.

        Raises ValueError if a file of the exported folder is missing, not listed or
        altered.
        """
        super().__init__()
        folder = Path(folder).resolve()
        sums = checks.read_checksums(folder.parent, ("__pycache__",))
        read = [name for name in sums if name.startswith((checks.MANIFEST, "pytorch/"))]
        checks.verify_files(folder.parent, sums, read, 1 << 40)
        self.manifest = checks.read_manifest(folder.parent)
        owners = range(len(self.manifest["member_exits"]))
        # No pickle, no code from the folder, no network.
        encoders = [
            AutoModel.from_pretrained(
                folder / f"encoder_{i}",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
            for i in owners
        ]
        width = encoders[0].config.hidden_size
        norm = getattr(encoders[0], "final_norm", nn.Identity())
        self.exits = nn.ModuleList(
            Exit(norm, width, self.manifest) for _ in self.manifest["exit_layers"]
        )
        self.exits.load_state_dict(load_file(folder / "exits.safetensors"))
        for encoder in encoders:
            encoder.final_norm = nn.Identity()  # Each exit applies its own norm.
        self.encoders = nn.ModuleList(encoders)
        self.eval()

    @torch.no_grad()
    def forward(self, input_ids, attention_mask, **inputs) -> torch.Tensor:
        """Returns the logits of all exits, [B, E, C], before temperature."""
        logits, inputs = {}, {"attention_mask": attention_mask, **inputs}
        members = zip(self.encoders, self.manifest["member_exits"], strict=True)
        for encoder, exits in members:
            output = encoder(input_ids, output_hidden_states=True, **inputs)
            for i in exits:
                states = output.hidden_states[self.manifest["exit_layers"][i] + 1]
                logits[i] = self.exits[i](states, attention_mask)
        return torch.stack([logits[i] for i in sorted(logits)], dim=1)
