/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_RECORD_IDS_H
#define DUSK_IO_RECORD_IDS_H

/* From a rendered string with marked spans to ids and their loss mask.
 *
 * The whole string is tokenised once, never turn by turn: it is cut at the special
 * tokens (tokenizer_special_at: the model's own and the added ones), which become their
 * ids, and each stretch between is encoded on its own. A token counts if its
 * characters meet a marked span; one without characters (BOS, the space that the model
 * puts in front of a stretch) if it stands inside one. All local. */

#include <stdbool.h>
#include <stdint.h>

#include "io/tokenizer.h"
#include "src/base/err.h"
#include "src/base/record.h"

/* Encodes one string after another; keeps its memory. Not for two threads at once. */
struct record_encoder;

/* t is borrowed. Owned; NULL with err set. */
struct record_encoder *record_encoder_create(const struct tokenizer *t,
                                             struct err *err);
void record_encoder_destroy(struct record_encoder *e); /* NULL is fine */

struct record_ids {
    int32_t *id;
    uint8_t *mask; /* 1: in the loss; id[0] is never predicted, whatever it says */
    int64_t n, room;
}; /* {0} is empty */
void record_ids_fini(struct record_ids *r);

/* Overwrites *out. bos: a BOS in front, unless the string begins with one. -1 with err
 * set, ERR_USAGE if a BOS is asked for that the tokenizer lacks. */
int record_encode(struct record_encoder *e, const struct marked_text *text, bool bos,
                  struct record_ids *out, struct err *err);

/* Tokens in the loss: the mask's ones but for position 0. */
int64_t record_ids_counted(const struct record_ids *r);

/* Keeps the first max_length ids; an end mark behind them is lost. */
void record_ids_truncate(struct record_ids *r, int64_t max_length);

/* Both sequences of a pair begin with the same `prompt` ids: those that the prompt
 * alone has in common with both (TRL's rule: a prompt that ends within a word loses its
 * last ids to the replies). From there on ids count up to the first marked span's end,
 * then by spans. */
struct pair_ids {
    struct record_ids chosen, rejected;
    int64_t prompt;
}; /* {0} is empty */
void pair_ids_fini(struct pair_ids *p);

/* Overwrites *out; as record_encode. */
int pair_encode(struct record_encoder *e, const struct marked_text *prompt,
                const struct marked_text *chosen, const struct marked_text *rejected,
                bool bos, struct pair_ids *out, struct err *err);

/* Keeps the first max_length ids of both sequences. False: nothing of a reply is left,
 * the prompt alone is as long; the pair is then as it was. */
bool pair_ids_truncate(struct pair_ids *p, int64_t max_length);

/* Are both sequences the same, so that nothing can be learnt from them? */
bool pair_ids_equal(const struct pair_ids *p);

#endif
