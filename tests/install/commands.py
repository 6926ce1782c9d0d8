"""Commands for each extra that show that the extra is enough for them."""

# A command for which an extra is enough, of those that import PyTorch for seconds.
ENOUGH = {
    "torch": "predict checkpoint text",
    "export": "export checkpoint --output exported",
    "bench": "bench artefact --baseline checkpoint --rounds 2 --seconds 0.01 --seq 16 "
    "--output report",
    "train": "prune checkpoint --pattern 2:4 --data rows --calibration-tokens 16 --output pruned",
}
