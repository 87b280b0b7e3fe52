#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the expected numbers of tests/oracle/align, with TRL's loss code and its packing.

    make_align.py check      recompute from the inputs in the files here, compare, exit 1 if they differ
    make_align.py cut RUN    write the files anew from a run of DPOTrainer and pack_dataset

Inputs are the sums of log-probabilities, the token counts and the document lengths. RUN is a
folder with dpo_values.json, dpo_tokens.json and pack.json; what it has is taken from it, the
rest (derivatives of the losses that it ran forward only) is computed. See README.md.
"""
import argparse
import collections
import json
import os
import pathlib
import sys
import types

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

import datasets
import torch
from trl import DPOTrainer, pack_dataset

datasets.disable_progress_bars()
HERE = pathlib.Path(__file__).parent / "align"
CASES = ["policy_near", "policy_far"]
SUMS = ["policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected"]
METRICS = {"rewards": ["chosen", "rejected", "accuracies", "margins"], "logps": ["chosen", "rejected"]}
# Ours: loss, beta, label_smoothing, rpo_alpha; TRL's: loss_type, loss_weights. TRL's sigmoid does not
# smooth; its "aot" does, and on one pair at a time it is cDPO.
LOSSES = {
    "sigmoid": ("sigmoid", 0.1, 0, 0, ["sigmoid"], [1]),
    "sigmoid_beta0.5": ("sigmoid", 0.5, 0, 0, ["sigmoid"], [1]),
    "cdpo_0.1": ("sigmoid", 0.1, 0.1, 0, ["aot"], [1]),
    "rpo_alpha1": ("sigmoid", 0.1, 0, 1, ["sigmoid", "sft"], [1, 1]),
    "rpo_alpha0.2": ("sigmoid", 0.1, 0, 0.2, ["sigmoid", "sft"], [1, 0.2]),
    "robust_0.1": ("robust", 0.1, 0.1, 0, ["robust"], [1]),
    "exo_pair_0.001": ("exo_pair", 0.1, 1e-3, 0, ["exo_pair"], [1]),
    **{n: (n, 0.1, 0, 0, [n], [1]) for n in ("ipo", "hinge", "sft", "apo_zero", "apo_down", "sppo_hard", "nca_pair",
                                             "sigmoid_norm", "discopop")}}
TAU = 0.05


# ---- TRL's loss on given sums ----


def nested(metrics):
    """{"rewards": {"chosen": ...}, ...} of TRL's "rewards/chosen" ..."""
    return {a: {b: metrics[f"{a}/{b}"] for b in names} for a, names in METRICS.items()}


def trl_loss(kinds, weights, smoothing, beta, sums, tokens):
    """Loss and metrics of a batch, and the derivatives by the log-probability of any one token of
    each sequence. A sequence's sum is spread evenly over its tokens."""
    count = torch.tensor(tokens[0] + tokens[1])
    inside = torch.arange(int(count.max())) < count[:, None]
    total = torch.tensor(sums["policy_chosen"] + sums["policy_rejected"], dtype=torch.float64)
    token = torch.where(inside, (total / count)[:, None], 0.0).requires_grad_()
    mask = torch.cat([torch.zeros(len(count), 1), inside.float()], 1).long()
    out = types.SimpleNamespace(log_probs=token, entropy=torch.zeros_like(token), mean_logits=torch.zeros_like(token),
                                is_top1=torch.zeros_like(inside))
    same = lambda x: x
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), args=types.SimpleNamespace(discopop_tau=TAU),
        accelerator=types.SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same), aux_loss_enabled=False,
        ld_alpha=None, use_weighting=False, f_divergence_type="reverse_kl", precompute_ref_logps=True, loss_types=kinds,
        loss_weights=weights, label_smoothing=smoothing, beta=beta, _total_train_tokens=0, _tp_size=1,
        _metrics={"train": collections.defaultdict(list)})
    double = lambda key: torch.tensor(sums[key], dtype=torch.float64)
    batch = {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask,
             "ref_chosen_logps": double("ref_chosen"), "ref_rejected_logps": double("ref_rejected")}
    loss = DPOTrainer._compute_loss(trainer, lambda **_: out, batch, False)
    loss.backward()
    pairs = len(tokens[0])
    by = token.grad[:, 0].tolist()
    return loss.item(), by[:pairs], by[pairs:], nested({k: v[-1] for k, v in trainer._metrics["train"].items()})


def pair(i, sums, tokens):
    return {k: [sums[k][i]] for k in SUMS}, [[tokens[0][i]], [tokens[1][i]]]


def one_loss(name, sums, tokens):
    loss, beta, smoothing, alpha, kinds, weights = LOSSES[name]
    run = lambda *batch: trl_loss(kinds, weights, smoothing, beta, *batch)
    pairs = range(len(tokens[0]))
    alone = [run(*pair(i, sums, tokens)) for i in pairs]
    if kinds == ["aot"]:
        mean = lambda k: sum(a[k] for a in alone) / len(pairs)
        whole = mean(0), [a[1][0] / len(pairs) for a in alone], [a[2][0] / len(pairs) for a in alone]
    else:
        whole = run(sums, tokens)
    return {"name": loss, "beta": beta, "label_smoothing": smoothing, "rpo_alpha": alpha, "loss": whole[0],
            "per_pair": [a[0] for a in alone], "dloss_dlogp_chosen": whole[1], "dloss_dlogp_rejected": whole[2]}


def preference(inputs):
    """The whole of dpo.json from its inputs."""
    tokens = [inputs["chosen_tokens"], inputs["rejected_tokens"]]
    res = {"chosen_tokens": tokens[0], "rejected_tokens": tokens[1], "discopop_tau": TAU, "cases": {}}
    for case in CASES:
        sums = {k: inputs["cases"][case][k] for k in SUMS}
        free = {**sums, "ref_chosen": [0.0] * len(tokens[0]), "ref_rejected": [0.0] * len(tokens[0])}
        res["cases"][case] = {**sums, "metrics": trl_loss(["sigmoid"], [1], 0, 0.1, sums, tokens)[3],
                              "losses": {n: one_loss(n, sums, tokens) for n in LOSSES},
                              "reference_free": one_loss("sigmoid", free, tokens)}
    return res


# ---- TRL's packing ----


def placed(lengths, max_length):
    """Packs as lists of [document, length, offset], read from marked tokens."""
    marked = [[[d, i] for i in range(n)] for d, n in enumerate(lengths)]
    column = [[d * 1000 + i for d, i in m] for m in marked]
    packs = []
    for row in pack_dataset(datasets.Dataset.from_dict({"input_ids": column}), max_length, "bfd"):
        parts = []
        for at, v in enumerate(row["input_ids"]):
            d, i = divmod(v, 1000)
            if i == 0:
                parts.append([d, 0, at])
            assert parts[-1][0] == d and parts[-1][1] == i, "a part is not a document's beginning"
            parts[-1][1] += 1
        packs.append(parts)
    return packs


def packing(inputs):
    """The whole of pack.json from its inputs."""
    return {"max_length": inputs["max_length"], "lengths": inputs["lengths"],
            "packs": placed(inputs["lengths"], inputs["max_length"])}


# ---- files ----


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path, value):
    """One line for each list and each object without objects in it."""
    def text(v, indent):
        if not isinstance(v, dict):
            return json.dumps(v)
        pad = " " * (indent + 1)
        return "{\n" + ",\n".join(f"{pad}{json.dumps(k)}: {text(x, indent + 1)}" for k, x in v.items()) + "\n" + " " * indent + "}"
    path.write_text(text(value, 0) + "\n", encoding="utf-8")


def differences(new, old, place=""):
    """(place, difference) of all numbers; relative above 1. What cannot be compared is infinite."""
    if isinstance(new, dict) and isinstance(old, dict) and new.keys() == old.keys():
        return [d for k in new for d in differences(new[k], old[k], f"{place}/{k}")]
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [d for i, (a, b) in enumerate(zip(new, old)) for d in differences(a, b, f"{place}/{i}")]
    if isinstance(new, (int, float)) and isinstance(old, (int, float)):
        return [(place, abs(new - old) / max(1.0, abs(old)))]
    return [(place, 0.0 if new == old else float("inf"))]


def cut(run):
    values, tokens = read_json(run / "dpo_values.json"), read_json(run / "dpo_tokens.json")["pairs"]
    doubles = {c: values["cases"][c]["trl_loss_code_float64"] for c in CASES}
    dpo = preference({"chosen_tokens": [len(p["chosen_ids"]) for p in tokens],
                      "rejected_tokens": [len(p["rejected_ids"]) for p in tokens], "cases": doubles})
    for name, case in dpo["cases"].items():
        theirs = doubles[name]
        case["metrics"] = nested(theirs["metrics"])
        for loss, mine in case["losses"].items():
            have = theirs["losses"].get(loss) or theirs["forward_only"][loss]
            mine.update({k: v for k, v in have.items() if k in mine})
        case["reference_free"].update({k: theirs["reference_free_sigmoid"][k] for k in ("loss", "per_pair")})
    write_json(HERE / "dpo.json", dpo)
    pack = read_json(run / "pack.json")
    parts = pack["strategies"]["bfd"]["placement"]
    assert all(p["from"] == 0 for pack_ in parts for p in pack_)
    write_json(HERE / "pack.json", {"max_length": pack["max_length"], "lengths": pack["lengths"],
                                    "packs": [[[p["document"], p["length"], p["offset"]] for p in x] for x in parts]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "cut"])
    parser.add_argument("run", nargs="?", type=pathlib.Path)
    options = parser.parse_args()
    if (options.what == "cut") != (options.run is not None):
        parser.error("cut needs RUN, check takes none")
    if options.run:
        cut(options.run)
    bad = 0
    for name, compute in (("dpo.json", preference), ("pack.json", packing)):
        old = read_json(HERE / name)
        found = differences(compute(old), old)
        place, worst = max(found, key=lambda d: d[1])
        print(f"{name}: {len(found)} values, worst difference {worst:.2g} at {place}, limit 1e-9")
        bad += sum(d > 1e-9 for _, d in found)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
