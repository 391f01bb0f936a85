"""Speed, measured side by side: `train.py` (steps and epochs), `data.py` (the input). See README.md."""
