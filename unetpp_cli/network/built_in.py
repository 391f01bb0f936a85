"""The weights inside the package. Imports no torch.

Their terms, which are not those of the code, stand beside them: unetpp_cli/weights/TERMS.md.
"""

from __future__ import annotations

from pathlib import Path

CAMVID11 = Path(__file__).parents[1] / "weights" / "camvid11.safetensors"
"""UNet++ trained on CamVid's 367 training frames (examples/camvid.md): 11 classes of a street."""

BUILT_IN = {"camvid11": CAMVID11}
"""By the names they go by wherever there is no file of that name."""
