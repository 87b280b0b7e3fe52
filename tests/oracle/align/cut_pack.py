#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cut_pack.py RUN: writes pack_nll.json from the pack.json of make_pack.py's run: of
strategy bfd, the tokens of each document and what TRL found for each packed row."""
import json
import pathlib
import sys

run = json.loads((pathlib.Path(sys.argv[1]) / "pack.json").read_text())
bfd = run["strategies"]["bfd"]
out = {"max_length": run["max_length"], "tokens": run["tokens"],
       "packs": [[p["document"] for p in pack] for pack in bfd["placement"]],
       "counted": bfd["labels_counted"], "nll": bfd["nll_packed"]}
here = pathlib.Path(__file__).parent
(here / "pack_nll.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
