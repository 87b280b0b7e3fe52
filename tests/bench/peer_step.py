# SPDX-License-Identifier: Apache-2.0
"""A training step of transformers' Mistral on CPU, for tests/bench/peer_step.sh.

Usage: peer_step.py SIZE MODE [--threads N] [--steps K] [--compile]

SIZE: slice, small, toy, as `dusk bench step` has them. MODE: fp32; autocast (fp32
weights, products in bf16); bf16 (bf16 weights, AdamW on an fp32 copy). A step is all
micro-batches forward and backward, the norm's clip and AdamW. One JSON object on
standard output: tokens_s (median), gflops, peak_rss_gb and what was run.
"""

import argparse
import json
import resource
import statistics
import time

import torch
import transformers

# hidden, ff, layers, heads, kv heads, vocabulary, length, micro-batch, accumulation
SIZES = {
    "slice": (4096, 14336, 2, 32, 8, 32000, 1024, 1, 4),
    "small": (1024, 3584, 8, 16, 4, 32000, 1024, 1, 8),
    "toy": (256, 688, 8, 8, 4, 4096, 256, 8, 4),
}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("mode", choices=("fp32", "autocast", "bf16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def make_model(size, dtype):
    hidden, ff, layers, heads, kv_heads, vocab = SIZES[size][:6]
    config = transformers.MistralConfig(
        hidden_size=hidden,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        max_position_embeddings=4096,
        sliding_window=None,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return transformers.MistralForCausalLM(config).to(dtype).train()


class Masters:
    """AdamW on fp32 copies of bf16 parameters."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.copies = [p.detach().float().clone() for p in parameters]
        self.adamw = torch.optim.AdamW(self.copies, lr=1e-4, fused=True)

    def update(self):
        for copy, p in zip(self.copies, self.parameters):
            copy.grad, p.grad = p.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        self.adamw.step()
        with torch.no_grad():
            for copy, p in zip(self.copies, self.parameters):
                p.copy_(copy)


class Direct:
    """AdamW on fp32 parameters."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.adamw = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)


def main():
    o = options()
    hidden, ff, layers, heads, kv_heads, vocab, length, batch, accumulation = SIZES[o.size]
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    half = o.mode == "bf16"
    model = make_model(o.size, torch.bfloat16 if half else torch.float32)
    optimizer = (Masters if half else Direct)(list(model.parameters()))
    forward = torch.compile(model) if o.compile else model
    ids = torch.randint(0, vocab, (batch, length))

    def step():
        for _ in range(accumulation):
            with torch.autocast("cpu", torch.bfloat16, enabled=o.mode == "autocast"):
                loss = forward(input_ids=ids, labels=ids).loss / accumulation
            loss.backward()
        optimizer.update()

    for _ in range(2 if o.compile else 1):
        step()
    seconds = []
    for _ in range(o.steps):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    dim = hidden // heads
    matrices = layers * (2 * hidden * hidden + 2 * hidden * kv_heads * dim + 3 * hidden * ff)
    tokens = accumulation * batch * length
    flops = tokens * (6 * (matrices + vocab * hidden) + 6 * layers * length * hidden)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-9
    print(json.dumps({
        "size": o.size, "mode": o.mode, "compile": o.compile, "threads": o.threads,
        "torch": torch.__version__, "transformers": transformers.__version__,
        "step_s": round(median, 4), "tokens_s": round(tokens / median, 1),
        "gflops": round(flops / median * 1e-9, 1), "peak_rss_gb": round(rss, 2),
    }))


if __name__ == "__main__":
    main()
