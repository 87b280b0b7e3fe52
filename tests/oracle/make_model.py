#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the expected numbers of tests/oracle/model again, with transformers, torch,
mergekit and SentencePiece.

    make_model.py check           recompute, compare with the files here, exit 1 if they differ
    make_model.py write OUT       recompute into OUT, inputs copied

Inputs are the models' weights and config.json, the tokenizer models, the ids and labels in
the expect files and the texts in vectors.json; all else is computed. Weights and ids of the
tiny models are also drawn again from their seeds and compared, bit for bit. See README.md.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")

import sentencepiece
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, get_scheduler
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.utils import logging as transformers_logging

torch.set_num_threads(1)
transformers_logging.disable_progress_bar()
HERE = pathlib.Path(__file__).parent / "model"
EXAMPLE = pathlib.Path(__file__).parents[2] / "configs" / "quickstart"
TINY = ["tiny-mistral", "tiny-llama-tied", "tiny-mistral-window", "tiny-llama-ropetheta"]
MERGED = ["linear-0.5-0.5", "linear-0.3-0.7", "linear-1-0.5", "linear-1-0.5-raw", "linear-0.3-0.7-bf16",
          "linear-0.3-0.7-f32-out-bf16", "slerp-0.5", "slerp-0.25", "slerp-0.25-base-b", "slerp-0.25-bf16",
          "slerp-0.25-f32-out-bf16"]
UPSCALED = ["small-m1", "small-ranges", "tiny-mistral-m1", "tiny-mistral-ranges"]
NOT_COUNTED = -100


# ---- models ----


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def load(folder, dtype=torch.float32, attention="eager"):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()


class Double:
    """The model's formulas in float64 throughout: transformers keeps parts in float32."""

    def __init__(self, model):
        self.config = model.config
        self.weight = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}

    def normed(self, x, name):
        scale = (x.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).rsqrt()
        return x * scale * self.weight[name + ".weight"]

    def turned(self, x):
        """Rotary positions on [B, T, heads, E], halves as pairs."""
        half = x.shape[-1] // 2
        theta = self.config.rope_parameters["rope_theta"]
        rate = torch.tensor([theta ** (-i / half) for i in range(half)], dtype=torch.float64)
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None, None] * rate
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def attended(self, x, at):
        c = self.config
        batch, length, _ = x.shape
        groups = c.num_attention_heads // c.num_key_value_heads
        split = lambda which: F.linear(x, self.weight[f"{at}.{which}.weight"]).unflatten(-1, (-1, c.head_dim))
        q, k, v = self.turned(split("q_proj")), self.turned(split("k_proj")), split("v_proj")
        score = torch.einsum("bihge,bjhe->bhgij", q.unflatten(2, (-1, groups)), k) / math.sqrt(c.head_dim)
        back = torch.arange(length)[:, None] - torch.arange(length)
        window = getattr(c, "sliding_window", None) or length
        score = score.masked_fill((back < 0) | (back >= window), -math.inf)
        out = torch.einsum("bhgij,bjhe->bihge", score.softmax(-1), v)
        return F.linear(out.reshape(batch, length, -1), self.weight[at + ".o_proj.weight"])

    def __call__(self, ids):
        """Logits, residual stream after each layer, final norm."""
        x, stream = F.embedding(ids, self.weight["model.embed_tokens.weight"]), []
        for i in range(self.config.num_hidden_layers):
            at = f"model.layers.{i}"
            x = x + self.attended(self.normed(x, at + ".input_layernorm"), at + ".self_attn")
            h = self.normed(x, at + ".post_attention_layernorm")
            part = lambda which, y: F.linear(y, self.weight[f"{at}.mlp.{which}.weight"])
            x = x + part("down_proj", F.silu(part("gate_proj", h)) * part("up_proj", h))
            stream.append(x)
        final = self.normed(x, "model.norm")
        head = self.weight.get("lm_head.weight", self.weight["model.embed_tokens.weight"])
        return F.linear(final, head), stream, final


def cross_entropy(logits, ids):
    """[B, T - 1]: of ids[:, t + 1] by logits[:, t]."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def counted_mean(ce, labels):
    keep = labels[:, 1:] != NOT_COUNTED
    return ce[keep].mean()


def gradients(loss, named):
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), retain_graph=True)))


def l2(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def distance(a, b):
    return float((a.detach().double() - b.detach().double()).abs().max())


class Watched:
    """One forward pass with what flows through chosen modules."""

    def __init__(self, model, ids):
        self.seen = {}
        hooks = [m.register_forward_hook(self.keeper(n)) for n, m in model.named_modules()]
        self.logits = model(input_ids=ids, use_cache=False).logits
        for h in hooks:
            h.remove()

    def keeper(self, name):
        def keep(module, inputs, output):
            out = output[0] if isinstance(output, tuple) else output
            self.seen[name] = (inputs[0] if inputs else None, out)
        return keep

    def into(self, name):
        return self.seen[name][0]

    def out(self, name):
        return self.seen[name][1]


def first_layer(model, watched, length):
    """What flows through layer 0, by the names of expect.safetensors."""
    at = "model.layers.0."
    got = {"input_layernorm": watched.out(at + "input_layernorm"),
           "heads": watched.into(at + "self_attn.o_proj"),
           "attention_out": watched.out(at + "self_attn.o_proj"),
           "after_attention": watched.into(at + "post_attention_layernorm"),
           "post_attention_layernorm": watched.out(at + "post_attention_layernorm"),
           "mlp_out": watched.out(at + "mlp.down_proj")}
    for which in "qkv":
        got[which] = watched.out(f"{at}self_attn.{which}_proj")
    for which in ("gate", "up"):
        got[which] = watched.out(f"{at}mlp.{which}_proj")
    cos, sin = model.model.rotary_emb(got["q"], torch.arange(length)[None])
    heads = lambda x: x.unflatten(-1, (-1, model.config.head_dim)).transpose(1, 2)
    flat = lambda x: x.transpose(1, 2).flatten(2)
    q, k = apply_rotary_pos_emb(heads(got["q"]), heads(got["k"]), cos, sin)
    got.update(cos=cos[0], sin=sin[0], q_rotated=flat(q), k_rotated=flat(k))
    return {"layer0." + k: v for k, v in got.items()}


# ---- draws ----


def drawn_weights(model, seed):
    """N(0, 0.1^2), norms 1 + 0.2 N(0, 1), in the order of named_parameters."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda p: torch.randn(p.shape, generator=g)
    return {n: 1.0 + 0.2 * draw(p) if p.ndim == 1 else 0.1 * draw(p) for n, p in model.named_parameters()}


def drawn_ids(seed, vocab, rows, length):
    """Uniform above the special ids; BOS first, two ids twice in each row."""
    ids = torch.randint(3, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 5] = ids[:, -2] = ids[:, 2]
    ids[:, 0] = 1
    return ids


# ---- expected numbers: each returns (json, arrays) of one folder ----


def tiny(folder, old):
    model = load(folder)
    ids, labels = torch.tensor(old["ids"]), torch.tensor(old["labels_masked"])
    rows, length = ids.shape
    named = dict(model.named_parameters())
    for name, value in drawn_weights(model, old["seed_weights"]).items():
        assert torch.equal(value, named[name]), f"{folder.name}: {name} is not what its seed gives"
    assert torch.equal(ids, drawn_ids(old["seed_ids"], model.config.vocab_size, rows, length))

    def losses(m):
        run = lambda y: m(input_ids=ids, labels=y, use_cache=False).loss
        return run(ids), run(labels)

    watched = Watched(model, ids)
    stream = [watched.out(f"model.layers.{i}") for i in range(model.config.num_hidden_layers)]
    final, ce = watched.out("model.norm"), cross_entropy(watched.logits, ids)
    loss, masked = losses(model)
    grad, grad_masked = gradients(loss, named), gradients(masked, named)
    double = Double(model)
    logits64, stream64, final64 = double(ids)
    ce64 = cross_entropy(logits64, ids)
    loss64, masked64 = ce64.mean(), counted_mean(ce64, labels)
    grad64, grad_masked64 = gradients(loss64, double.weight), gradients(masked64, double.weight)
    other = load(folder, attention="sdpa")
    loss_sdpa = losses(other)[0]
    grad_sdpa = gradients(loss_sdpa, dict(other.named_parameters()))
    off = {n: distance(grad[n], g) / float(g.abs().max()) for n, g in grad64.items()}
    off_sdpa = {n: distance(grad[n], g) / float(g.abs().max()) for n, g in grad_sdpa.items()}

    arrays = {"logits": watched.logits, "token_ce": ce, "final_norm": final,
              "logits_f64_minus_f32": (logits64 - watched.logits.double()).float()}
    arrays |= {f"block.{i}": x for i, x in enumerate(stream)} | {"grad." + n: g for n, g in grad.items()}
    if folder.name == "tiny-llama-ropetheta":
        arrays |= first_layer(model, watched, length)
    new = {k: old[k] for k in ("model", "seed_weights", "seed_ids", "B", "T", "ids", "labels_masked")} | {
        "counted": rows * (length - 1),
        "counted_masked": int((labels[:, 1:] != NOT_COUNTED).sum()),
        "loss": loss.item(), "loss_f64": loss64.item(),
        "loss_masked": masked.item(), "loss_masked_f64": masked64.item(),
        "grad_norm": l2(grad.values()), "grad_norm_masked": l2(grad_masked.values()),
        "grad_masked_l2": {n: l2([g]) for n, g in grad_masked64.items()},
        "measured": {
            "logits_max_abs": float(watched.logits.detach().abs().max()),
            "logits_f32_vs_f64": distance(watched.logits, logits64),
            "logits_eager_vs_sdpa": distance(watched.logits, other(input_ids=ids, use_cache=False).logits),
            "blocks_f32_vs_f64": [distance(a, b) for a, b in zip(stream, stream64)],
            "blocks_max_abs": [float(x.detach().abs().max()) for x in stream],
            "final_norm_f32_vs_f64": distance(final, final64),
            "token_ce_f32_vs_f64": distance(ce, ce64),
            "loss_f32_vs_f64": distance(loss, loss64),
            "loss_eager_vs_sdpa": distance(loss, loss_sdpa),
            "loss_masked_f32_vs_f64": distance(masked, masked64),
            "grad_rel_f32_vs_f64_worst": max(off.values()),
            "grad_rel_f32_vs_f64_worst_tensor": max(off, key=off.get),
            "grad_rel_eager_vs_sdpa_worst": max(off_sdpa.values())}}
    return new, arrays


def bf16(folder, old):
    ids, labels = torch.tensor(old["ids"]), torch.tensor(old["labels_masked"])
    new = {k: old[k] for k in ("model", "B", "T", "ids", "labels_masked")}
    arrays, run = {}, {}
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        model = load(folder, dtype)
        named = dict(model.named_parameters())
        watched = Watched(model, ids)
        stream = [watched.out(f"model.layers.{i}") for i in range(model.config.num_hidden_layers)]
        loss, masked = (model(input_ids=ids, labels=y, use_cache=False).loss for y in (ids, labels))
        grad, ce = gradients(loss, named), cross_entropy(watched.logits.float(), ids)
        new |= {f"loss_{name}_run": loss.item(), f"loss_masked_{name}_run": masked.item(),
                f"grad_norm_{name}_run": l2(grad.values())}
        arrays |= {f"logits_{name}_run": watched.logits, f"token_ce_{name}_run": ce}
        run[name] = dict(logits=watched.logits, stream=stream, grad=grad, ce=ce, loss=loss.item())
    a, b = run["bf16"], run["f32"]
    logits64 = Double(model)(ids)[0]
    sdpa = load(folder, torch.bfloat16, "sdpa")(input_ids=ids, use_cache=False).logits
    error = a["logits"].double() - b["logits"].double()
    off = {n: l2([a["grad"][n].double() - g.double()]) / l2([g]) for n, g in b["grad"].items()}
    return new | {
        "loss_f64": cross_entropy(logits64, ids).mean().item(),
        "grad_l2_f32_run": {n: l2([g]) for n, g in b["grad"].items()},
        "measured": {
            "logits_max_abs": float(b["logits"].detach().abs().max()),
            "logits_bf16_vs_f32_max": float(error.detach().abs().max()),
            "logits_bf16_vs_f32_mean": float(error.detach().abs().mean()),
            "logits_bf16_vs_f32_rms": float(error.detach().square().mean().sqrt()),
            "logits_bf16_eager_vs_sdpa_max": distance(a["logits"], sdpa),
            "logits_f32_vs_f64_max": distance(b["logits"], logits64),
            "token_ce_bf16_vs_f32_max": distance(a["ce"], b["ce"]),
            "loss_bf16_vs_f32": abs(a["loss"] - b["loss"]),
            "blocks_bf16_vs_f32_max": [distance(x, y) for x, y in zip(a["stream"], b["stream"])],
            "argmax_agreement": float((a["logits"].argmax(-1) == b["logits"].argmax(-1)).float().mean()),
            "grad_rel_l2_bf16_vs_f32_worst": max(off.values()),
            "grad_rel_l2_bf16_vs_f32_worst_tensor": max(off, key=off.get)}}, arrays


def widened(folder, old):
    """F16, and the awkward file: a float32 run on the widened weights."""
    model, ids = load(folder), torch.tensor(old["ids"])
    logits = model(input_ids=ids, use_cache=False).logits
    logits64 = Double(model)(ids)[0]
    loss, loss64 = (cross_entropy(x, ids).mean().item() for x in (logits, logits64))
    new = {k: old[k] for k in ("model", "B", "T", "ids")}
    if folder.name != "hostile-llama":
        row = model.model.layers[0].self_attn.v_proj.weight[0]
        return (new | {"loss_f32_run": loss, "measured": {"logits_f32_vs_f64_max": distance(logits, logits64)}},
                {"logits_f32_run": logits, "v_proj_row0_f32": row})
    raw = (folder / "model.safetensors").read_bytes()
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    header.pop("__metadata__")
    order = sorted(header, key=lambda n: header[n]["data_offsets"])
    known = dict(model.named_parameters())
    return new | {"loss": loss, "loss_f64": loss64, "disk_order": order,
                  "ignored_tensors": [n for n in order if n not in known],
                  "measured": {"logits_f32_vs_f64": distance(logits, logits64)}}, {"logits": logits}


# ---- training ----


def adamw_run(named, logits_of, ids, labels, s):
    """The steps; s: the settings in train/expect.json. Returns the log and the moments."""
    decay = [[p for p in named.values() if p.ndim == 2], [p for p in named.values() if p.ndim == 1]]
    groups = [{"params": p, "weight_decay": w} for p, w in zip(decay, (s["weight_decay"], 0.0))]
    optimizer = torch.optim.AdamW(groups, lr=s["lr"], betas=tuple(s["betas"]), eps=s["eps"], foreach=False)
    schedule = get_scheduler(s["schedule"], optimizer, s["warmup_steps"], s["steps"])
    log = []
    for step in range(s["steps"]):
        keep = labels[step, :, :, 1:] != NOT_COUNTED
        counted, sums = keep.sum((1, 2)).tolist(), []
        optimizer.zero_grad()
        for x, k in zip(ids[step], keep):
            part = (cross_entropy(logits_of(x), x) * k).sum()
            (part / sum(counted)).backward()
            sums.append(part.item())
        norm = torch.nn.utils.clip_grad_norm_(named.values(), s["clip"], foreach=False).item()
        log.append({"step": step, "loss": sum(sums) / sum(counted), "grad_norm": norm,
                    "clip_scale": min(1.0, s["clip"] / (norm + 1e-6)), "lr": schedule.get_last_lr()[0],
                    "counted": counted, "counted_total": sum(counted), "ce_sums": sums,
                    "mean_of_means": sum(a / b for a, b in zip(sums, counted)) / len(sums)})
        optimizer.step()
        schedule.step()
    return log, {n: optimizer.state[p] for n, p in named.items()}


def summary(x):
    flat = x.detach().double().flatten()
    stride = max(1, len(flat) // 8)
    return {"sum": flat.sum().item(), "l2": flat.norm().item(), "max_abs": flat.abs().max().item(),
            "sample_stride": stride, "samples": flat[::stride][:8].tolist()}


def worst(key, values):
    name = max(values, key=values.get)
    return {key: values[name], "tensor": name}


def train(folder, old):
    stored = load_file(folder / "expect.safetensors")
    ids, labels = stored["ids"].long(), stored["labels"].long()
    model = load(folder.parent / old["model"]).train()
    double, named = Double(model), dict(model.named_parameters())
    start = {n: p.detach().clone() for n, p in named.items()}
    log, state = adamw_run(named, lambda x: model(input_ids=x, use_cache=False).logits, ids, labels, old)
    log64, state64 = adamw_run(double.weight, lambda x: double(x)[0], ids, labels, old)
    unseen = sorted(set(range(model.config.vocab_size)) - set(ids.unique().tolist()))
    rows = ids.unique().tolist() + unseen[:4]
    final = {n: {"weight": p.detach(), "exp_avg": state[n]["exp_avg"], "exp_avg_sq": state[n]["exp_avg_sq"]}
             for n, p in named.items()}
    whole = [n for n in named if n.startswith("model.layers.1.") or n == "model.norm.weight"]
    tables = ["model.embed_tokens.weight", "lm_head.weight"]
    arrays = {"ids": ids.int(), "labels": labels.int(), "row_ids": torch.tensor(rows, dtype=torch.int32)}
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        arrays |= {f"{kind}.{n}": final[n][kind] for n in whole}
        arrays |= {f"{kind}.{n}.rows": final[n][kind][rows] for n in tables}
    off = {n: distance(p, double.weight[n]) for n, p in named.items()}
    share = lambda a, b: l2([a.detach().double() - b.detach().double()]) / l2([b.detach()])
    moment = lambda kind: {n: share(state[n][kind], state64[n][kind]) for n in named}
    gaps = torch.cat([(p.detach().double() - double.weight[n].detach()).abs().flatten() for n, p in named.items()])
    fixed = ("model", "steps", "micro_batches", "B", "T", "lr", "schedule", "warmup_steps", "betas", "eps",
             "weight_decay", "clip")
    return {k: old[k] for k in fixed} | {
        "decayed": [n for n, p in named.items() if p.ndim == 2],
        "not_decayed": [n for n, p in named.items() if p.ndim == 1],
        "log": log, "log_f64": [{k: r[k] for k in ("loss", "grad_norm")} for r in log64],
        "stored_whole": whole, "stored_rows": tables,
        "final": {n: {k: summary(x) for k, x in t.items()} for n, t in final.items()},
        "unseen_ids": unseen,
        "measured_f32_vs_f64": {
            "loss": max(abs(a["loss"] - b["loss"]) for a, b in zip(log, log64)),
            "grad_norm_rel": max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(log, log64)),
            "weight": worst("max_abs", off),
            "weight_elements_off_by_more_than": {str(x): int((gaps > x).sum()) for x in (1e-6, 1e-5, 1e-4, 1e-3)},
            "weight_rel_l2": worst("rel_l2", {n: share(p, double.weight[n]) for n, p in named.items()}),
            "update_rel_l2": worst("rel_l2", {n: share(p.detach() - start[n], double.weight[n] - start[n].double())
                                              for n, p in named.items()}),
            "exp_avg_rel_l2": worst("rel_l2", moment("exp_avg")),
            "exp_avg_sq_rel_l2": worst("rel_l2", moment("exp_avg_sq"))}}, arrays


def schedules(old):
    new = {k: v for k, v in old.items() if k != "schedules"} | {"schedules": []}
    for row in old["schedules"]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=old["base_lr"])
        s = get_scheduler(row["name"], optimizer, row["warmup_steps"], old["training_steps"],
                          scheduler_specific_kwargs=dict(row["kwargs"]))
        rates = []
        for _ in row["lr"]:
            rates.append(s.get_last_lr()[0])
            optimizer.step()
            s.step()
        new["schedules"].append({k: row[k] for k in ("label", "name", "kwargs", "warmup_steps")} | {"lr": rates})
    return new


# ---- up-scaling ----


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def merged_by_mergekit(case, root):
    """What mergekit makes of the case's mergekit.yml; returns a folder with the model."""
    out = pathlib.Path(tempfile.mkdtemp()) / case.name
    tool = pathlib.Path(sys.executable).with_name("mergekit-yaml")
    subprocess.run([tool, case.resolve() / "mergekit.yml", out, "--quiet", "-j", "1", "--no-write-model-card",
                    "--no-copy-tokenizer"], cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def weights_in(folder):
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def upscaled(case, old, root):
    folder = merged_by_mergekit(case, root)
    merged, source = weights_in(folder), weights_in(root / old["source"])
    layers = [i for lo, hi in old["ranges"] for i in range(lo, hi)]
    direct = {n: w for n, w in source.items() if ".layers." not in n}
    for new_layer, old_layer in enumerate(layers):
        prefix = f"model.layers.{old_layer}."
        direct |= {f"model.layers.{new_layer}." + n.removeprefix(prefix): w
                   for n, w in source.items() if n.startswith(prefix)}
    same = merged.keys() == direct.keys() and all(digest(w) == digest(direct[n]) for n, w in merged.items())
    assert same, f"{case.name}: mergekit's passthrough is not the remap of layers"
    model, ids = load(folder), torch.tensor(old["ids"])
    assert torch.equal(ids, drawn_ids(401, model.config.vocab_size, 1, 24))
    logits, logits64 = model(input_ids=ids, use_cache=False).logits, Double(model)(ids)[0]
    kept = (case / "model.safetensors").exists()
    if kept:
        assert {n: digest(w) for n, w in weights_in(case).items()} == {n: digest(w) for n, w in merged.items()}
    shutil.rmtree(folder.parent)
    return {"source": old["source"], "ranges": old["ranges"], "source_layer_of": layers, "ids": old["ids"],
            "loss": model(input_ids=ids, labels=ids, use_cache=False).loss.item(),
            "loss_f64": cross_entropy(logits64, ids).mean().item(), "bitwise_equal_to_direct_remap": same,
            "sha256": {n: digest(w) for n, w in sorted(merged.items())},
            "measured": {"logits_f32_vs_f64": distance(logits, logits64),
                         "logits_max_abs": float(logits.detach().abs().max())}}, {"logits": logits}


# ---- merges ----


def cosine(a, b):
    a, b = a.double(), b.double()
    return float((a * b).sum() / max(float(a.norm()), 1e-8) / max(float(b.norm()), 1e-8))


def merged(case, root):
    """mergekit's weights; which tensors its slerp mixes along a line."""
    folder = merged_by_mergekit(case, root)
    weights = weights_in(folder)
    shutil.rmtree(folder.parent)
    a, b = weights_in(root / "merge" / "a"), weights_in(root / "merge" / "b")
    cosines = {n: cosine(a[n], b[n]) for n in sorted(a)} if case.name.startswith("slerp") else {}
    return {"line": [n for n, c in cosines.items() if abs(c) > 0.9995], "cosine": cosines}, weights


# ---- tokenizers ----


def vectors(folder, old):
    path = folder / "tokenizer.model"
    sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
    new = {"vocab_size": sp.vocab_size(), "bos": sp.bos_id(), "eos": sp.eos_id(), "unk": sp.unk_id(),
           "pad": sp.pad_id(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    new["encode"] = [{"text": r["text"], "ids": sp.encode(r["text"]),
                      "pieces": sp.encode(r["text"], out_type=str), "decoded": sp.decode(sp.encode(r["text"]))}
                     for r in old["encode"]]
    new["encode_bytes"] = [{"bytes_hex": r["bytes_hex"], "ids": sp.encode(bytes.fromhex(r["bytes_hex"])),
                            "decoded": sp.decode(sp.encode(bytes.fromhex(r["bytes_hex"])))}
                           for r in old["encode_bytes"]]
    new["decode"] = [{"what": r["what"], "ids": r["ids"], "decoded": sp.decode(r["ids"])} for r in old["decode"]]
    return new


# ---- the embedded example ----


def windows(stream, length):
    """Every token but the first is predicted once: (inputs, targets) in batches of one shape."""
    full = (len(stream) - 1) // length
    cut = lambda x, at: x[at:at + full * length].view(full, length)
    yield from zip(cut(stream, 0).split(16), cut(stream, 1).split(16))
    if full * length < len(stream) - 1:
        rest = stream[None, full * length:]
        yield rest[:, :-1], rest[:, 1:]


@torch.no_grad()
def example(old):
    """Losses of the quickstart's model and of its up-scaled forms on its held-out text."""
    model, sp = load(EXAMPLE / "model"), sentencepiece.SentencePieceProcessor(
        model_file=str(EXAMPLE / "model" / "tokenizer.model"))
    lines = (EXAMPLE / "valid.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [i for line in lines for i in [1, *sp.encode(json.loads(line)["text"]), 2]]
    stream, layers = torch.tensor(ids), model.model.layers
    new = {"tokens": len(ids), "first_ids": ids[:len(old["first_ids"])], "models": {}}
    for name, rows in old["models"].items():
        ranges = [r.split(":") for r in name.split(",")] if ":" in name else [(0, len(layers))]
        model.model.layers = torch.nn.ModuleList(layers[i] for lo, hi in ranges for i in range(int(lo), int(hi)))
        model.config.num_hidden_layers = len(model.model.layers)
        new["models"][name] = []
        for row in rows:
            total = 0.0
            for x, y in windows(stream, row["seq_len"]):
                logits = model(input_ids=x, use_cache=False).logits
                total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").double().sum().item()
            new["models"][name].append({"seq_len": row["seq_len"], "nll_sum": total, "count": len(ids) - 1,
                                        "loss": total / (len(ids) - 1)})
    return new


# ---- comparing and writing ----


class Report:
    """Differences within `limit` of the scale are noise of another CPU or version."""

    def __init__(self):
        self.failed, self.worst, self.same, self.compared = [], 0.0, 0, 0

    def number(self, place, new, old, scale, limit):
        off = abs(new - old) / scale if new != old else 0.0
        self.worst = max(self.worst, off / limit)
        if not off <= limit:
            self.failed.append(f"{place}: {new!r}, here {old!r}")

    def values(self, place, new, old, limit):
        if "measured" in place.split("/")[-1]:
            return  # how far two runs were apart: noise itself
        if isinstance(old, dict):
            if new.keys() != old.keys():
                self.failed.append(f"{place}: other keys: {sorted(new.keys() ^ old.keys())}")
            for k in old.keys() & new.keys():
                self.values(f"{place}/{k}", new[k], old[k], limit)
        elif isinstance(old, (list, tuple)) and len(new) == len(old):
            for i, (a, b) in enumerate(zip(new, old)):
                self.values(f"{place}/{i}", a, b, limit)
        elif isinstance(old, float):
            self.number(place, new, old, max(1.0, abs(old)), limit)
        elif new != old:
            self.failed.append(f"{place}: {new!r}, here {old!r}")

    def arrays(self, place, new, old, limit):
        if new.keys() != old.keys():
            self.failed.append(f"{place}: other arrays: {sorted(new.keys() ^ old.keys())}")
        for name in old.keys() & new.keys():
            a, b = new[name].detach(), old[name]
            self.compared += 1
            self.same += torch.equal(a, b)
            if a.shape != b.shape or a.dtype != b.dtype:
                self.failed.append(f"{place} {name}: {a.dtype} {list(a.shape)}")
                continue
            scale = 1.0 if name == "logits_f64_minus_f32" else max(float(b.abs().max()), 1e-9)
            self.number(f"{place} {name}", distance(a, b) + 0.0, 0.0, scale, limit)


def everything(root):
    """(folder, json name, new json, new arrays or None, limit) of all there is."""
    for name in TINY:
        yield root / name, "expect.json", *tiny(root / name, read_json(root / name / "expect.json")), 5e-6
    name = "tiny-mistral-bf16"
    yield root / name, "expect.json", *bf16(root / name, read_json(root / name / "expect.json")), 2e-2
    for name in ("tiny-llama-ropetheta-f16", "hostile-llama"):
        yield root / name, "expect.json", *widened(root / name, read_json(root / name / "expect.json")), 5e-6
    yield root / "train", "expect.json", *train(root / "train", read_json(root / "train" / "expect.json")), 2e-4
    yield root, "schedules.json", schedules(read_json(root / "schedules.json")), None, 1e-12
    for name in UPSCALED:
        case = root / "upscale" / name
        yield case, "expect.json", *upscaled(case, read_json(case / "expect.json"), root), 5e-6
    for name in MERGED:
        case = root / "merge" / name
        limit = 4e-3 if "bf16" in name else 1e-6
        yield case, "expect.json", *merged(case, root), limit
    for name in ("tiny512", "mistral-v1"):
        folder = root / "tokenizer" / name
        yield folder, "vectors.json", vectors(folder, read_json(folder / "vectors.json")), None, 1e-12
    yield root, "example.json", example(read_json(root / "example.json")), None, 1e-6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "write"])
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    options = parser.parse_args()
    if (options.what == "write") != (options.out is not None):
        parser.error("write needs OUT, check takes none")
    if options.out:
        shutil.copytree(HERE, options.out)
    failures = 0
    for folder, name, new, arrays, limit in everything(HERE):
        place = str(folder.relative_to(HERE) / name)
        report = Report()
        report.values(place, new, read_json(folder / name), limit)
        if arrays:
            report.arrays(place, arrays, load_file(folder / "expect.safetensors"), limit)
        print(f"{place}: worst difference {report.worst:.2g} of the limit {limit:g}; "
              f"{report.same} of {report.compared} arrays bitwise equal")
        for line in report.failed[:10]:
            print("  " + line)
        failures += len(report.failed)
        if options.out:
            to = options.out / folder.relative_to(HERE)
            (to / name).write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
            if arrays:
                save_file({k: v.detach().contiguous().clone() for k, v in arrays.items()}, to / "expect.safetensors")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
