"""Shows dusk's chat templates to transformers: each must render every text of sft_records.json, and the marked ones must
mark the same spans as the oracle's own jinja. Exit 1 if not.

    tests/support/print_jinja > tests/oracle/align/chat_templates.json
    python tests/oracle/align/check_templates.py       # needs transformers and jinja2
"""
import json
import os
import sys

from transformers.utils.chat_template_utils import render_jinja_template

here = os.path.dirname(os.path.abspath(__file__))


def load(name):
    with open(os.path.join(here, name), encoding="utf-8") as f:
        return json.load(f)


def as_chat(r, joint):
    user = r["instruction"] + (joint + r["input"] if r["input"] else "")
    return [{"role": "user", "content": user}, {"role": "assistant", "content": r["output"]}]


def render(source, messages, eos, **more):
    texts, spans = render_jinja_template(conversations=[messages], chat_template=source, bos_token="<s>", eos_token=eos, **more)
    return texts[0], (spans[0] if spans else None)


examples, records, ours = load("sft_examples.json"), load("sft_records.json")["templates"], load("chat_templates.json")
bad = count = 0
for name, oracle in records.items():
    if name not in ours["plain"]:
        continue
    eos = "<|im_end|>" if name == "chatml_added" else "</s>"
    chats = [] if name == "alpaca" else [c["messages"] for c in examples["chats"]]
    chats += [None if name == "alpaca" and r["input"] else as_chat(r, "\n\n") for r in examples["instructions"]]
    for messages, expect in zip(chats, oracle["records"], strict=True):
        if messages is None:  # jinja has no second field
            continue
        results = [render(ours["plain"][name], messages, eos)[0], render(ours["marked"][name], messages, eos)[0]]
        good = all(text == expect["text"] for text in results)
        prompt = render(ours["plain"][name], messages[:-1], eos, add_generation_prompt=True)[0]
        if "jinja" in oracle:
            marked = [render(x, messages, eos, return_assistant_tokens_mask=True) for x in (ours["marked"][name], oracle["jinja"])]
            good = good and marked[0] == marked[1]
            good = good and prompt == render(oracle["jinja"], messages[:-1], eos, add_generation_prompt=True)[0]
        else:
            good = good and expect["text"].startswith(prompt)
        count += 1
        if not good:
            bad += 1
            print(f"{name}: {expect['example']}: differs")
print(f"{count} chats, {bad} differ")
sys.exit(bad > 0 or count < 100)
