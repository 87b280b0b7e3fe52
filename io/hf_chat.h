/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_CHAT_H
#define DUSK_IO_HF_CHAT_H

/* How a tuned model is to be talked to, from its checkpoint into the files that
 * transformers reads: the chat template into tokenizer_config.json, the end mark into
 * generation_config.json, and where it is an added token into tokenizer_config.json and
 * special_tokens_map.json. The checkpoint's values say it (CHAT_*); local. */

#include "io/ckpt.h"

/* Keys of ckpt_info_value, written by training on record sets. */
#define CHAT_TEMPLATE_NAME "chat.template"
#define CHAT_TEMPLATE_TEXT "chat.template_text" /* its description */
#define CHAT_TEMPLATE_HASH "chat.template_hash"
#define CHAT_JINJA "chat.jinja" /* "": the template holds no chats */

/* The bytes of the exported file `name`: those of the checkpoint's file, changed where
 * the checkpoint has a chat template. *text is owned (free), NULL where the file is
 * copied as it is. -1 with err set (ERR_INPUT: the checkpoint's file is no JSON). */
int hf_chat_file(const struct ckpt_info *info, const char *name, char **text,
                 struct err *err);

/* The file that an export needs beside the checkpoint's own: there is a chat template,
 * but no file to put it in. NULL: none. */
const char *hf_chat_missing(const struct ckpt_info *info);

#endif
