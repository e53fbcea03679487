"""What the documents print works when it is copied."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss

from bundle.files import bundle_root
from bundle.losses import TSRLLoss

ROOT = Path(bundle_root())


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page that are of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_loop_of_the_losses_page_takes_a_step_in_a_fresh_interpreter() -> None:
    """Run as it is printed, on smaller slices; every weight of the network has moved."""
    (loop,) = blocks("losses.md", "python")
    assert loop.count("192") == 4
    program = f"""
import torch
from bundle.networks import TSRLNet
torch.manual_seed(0)
before = TSRLNet().state_dict()
torch.manual_seed(0)
{loop.replace("192", "96")}
print(all((before[name] != p).any().item() for name, p in network.named_parameters()))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "True"


def test_the_overlay_of_the_losses_page_puts_a_loss_of_monai_in_the_place_of_tal() -> None:
    (overlay,) = blocks("losses.md", "json")
    parser = ConfigParser()
    parser.read_config(str(ROOT / "configs" / "train.json"))
    parser.update(json.loads(overlay))
    total = parser.get_parsed_content("loss")
    assert type(total) is TSRLLoss
    assert type(total.side) is type(total.final["final"]) is DiceCELoss
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 16, 16, generator=generator)
    label = (torch.rand(2, 1, 16, 16, generator=generator) < 0.2).float()
    assert total((logits, [logits], []), label).item() == pytest.approx(
        2 * DiceCELoss(sigmoid=True)(logits, label).item()
    )
