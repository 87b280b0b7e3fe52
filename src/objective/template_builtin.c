/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/template.h"

#include <stdio.h>
#include <string.h>

#define ALPACA_TASK "Below is an instruction that describes a task"
#define ALPACA_ASK                                                                     \
    "Write a response that appropriately completes the request.\n\n"                   \
    "### Instruction:\n"

/* Layouts: SOLAR-10.7B-Instruct's (solar), OpenAI's ChatML, Zephyr's, Llama-2's,
 * Mistral-7B-Instruct-v0.1's, and that of Stanford Alpaca's paper. */
static const struct template_spec builtin[] = {
    {.name = "solar_eos",
     .part = {[PART_SYSTEM_BEFORE] = "### System:\n",
              [PART_SYSTEM_AFTER] = "\n\n",
              [PART_USER_BEFORE] = "### User:\n",
              [PART_USER_AFTER] = "\n\n",
              [PART_REPLY_BEFORE] = "### Assistant:\n",
              [PART_REPLY_END] = "{eos}"},
     .skip_empty_system = true},
    {.name = "solar", /* as published: no end mark */
     .part = {[PART_SYSTEM_BEFORE] = "### System:\n",
              [PART_SYSTEM_AFTER] = "\n\n",
              [PART_USER_BEFORE] = "### User:\n",
              [PART_USER_AFTER] = "\n\n",
              [PART_REPLY_BEFORE] = "### Assistant:\n"},
     .skip_empty_system = true},
    {.name = "chatml", /* the marks are plain text, several pieces each */
     .part = {[PART_SYSTEM_BEFORE] = "<|im_start|>system\n",
              [PART_SYSTEM_AFTER] = "<|im_end|>\n",
              [PART_USER_BEFORE] = "<|im_start|>user\n",
              [PART_USER_AFTER] = "<|im_end|>\n",
              [PART_REPLY_BEFORE] = "<|im_start|>assistant\n",
              [PART_REPLY_END] = "<|im_end|>",
              [PART_REPLY_AFTER] = "\n"}},
    {.name = "chatml_added",
     .part = {[PART_SYSTEM_BEFORE] = "<|im_start|>system\n",
              [PART_SYSTEM_AFTER] = "<|im_end|>\n",
              [PART_USER_BEFORE] = "<|im_start|>user\n",
              [PART_USER_AFTER] = "<|im_end|>\n",
              [PART_REPLY_BEFORE] = "<|im_start|>assistant\n",
              [PART_REPLY_END] = "<|im_end|>",
              [PART_REPLY_AFTER] = "\n"},
     .token = {"<|im_start|>", "<|im_end|>"},
     .eos = "<|im_end|>"},
    {.name = "zephyr",
     .part = {[PART_SYSTEM_BEFORE] = "<|system|>\n",
              [PART_SYSTEM_AFTER] = "{eos}\n",
              [PART_USER_BEFORE] = "<|user|>\n",
              [PART_USER_AFTER] = "{eos}\n",
              [PART_REPLY_BEFORE] = "<|assistant|>\n",
              [PART_REPLY_END] = "{eos}",
              [PART_REPLY_AFTER] = "\n"}},
    {.name = "llama2",
     .part = {[PART_SYSTEM_BEFORE] = "<<SYS>>\n",
              [PART_SYSTEM_AFTER] = "\n<</SYS>>\n\n",
              [PART_USER_BEFORE] = "{bos}[INST] ",
              [PART_USER_AFTER] = " [/INST]",
              [PART_REPLY_OPEN] = " ",
              [PART_REPLY_END] = " {eos}"},
     .system = SYSTEM_MERGED,
     .strip = true},
    {.name = "mistral", /* v0.1 has no place for a system text: merged, own choice */
     .part = {[PART_START] = "{bos}",
              [PART_SYSTEM_AFTER] = "\n\n",
              [PART_USER_BEFORE] = "[INST] ",
              [PART_USER_AFTER] = " [/INST]",
              [PART_REPLY_END] = "{eos}",
              [PART_REPLY_AFTER] = " "},
     .system = SYSTEM_MERGED},
    {.name = "alpaca", /* likewise */
     .part = {[PART_SYSTEM_AFTER] = "\n\n",
              [PART_USER_BEFORE] = ALPACA_TASK ". " ALPACA_ASK,
              [PART_USER_AFTER] = "\n\n### Response:",
              [PART_INPUT_BEFORE] = ALPACA_TASK
              ", paired with an input that provides further context. " ALPACA_ASK,
              [PART_INPUT_JOINT] = "\n\n### Input:\n",
              [PART_REPLY_END] = "{eos}"},
     .system = SYSTEM_MERGED,
     .bos = true,
     .one_turn = true,
     .end_once = true},
    {.name = "plain_completion",
     .part = {[PART_SYSTEM_AFTER] = "\n",
              [PART_USER_AFTER] = "\n",
              [PART_INPUT_JOINT] = "\n",
              [PART_REPLY_END] = "{eos}"},
     .system = SYSTEM_MERGED,
     .bos = true,
     .raw = true,
     .one_turn = true,
     .end_once = true},
    {.name = "plain_text",
     .part = {[PART_SYSTEM_AFTER] = "\n", [PART_REPLY_END] = "{eos}"},
     .system = SYSTEM_MERGED,
     .bos = true,
     .raw = true,
     .text = true,
     .one_turn = true,
     .end_once = true}};

const struct template_spec *template_builtin(int i)
{
    return i < 0 || i >= (int)(sizeof builtin / sizeof *builtin) ? NULL : &builtin[i];
}

const struct template_spec *template_find(const char *name, struct err *err)
{
    char names[256] = "";
    size_t used = 0;
    for (int i = 0; template_builtin(i); i++) {
        if (strcmp(builtin[i].name, name) == 0)
            return &builtin[i];
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i ? ", " : "", builtin[i].name);
    }
    err_set(err, ERR_USAGE, "template: expected one of %s, found \"%.40s\"", names,
            name);
    return NULL;
}
