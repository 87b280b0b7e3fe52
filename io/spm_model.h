/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SPM_MODEL_H
#define DUSK_IO_SPM_MODEL_H

/* Is this tokenizer.model fit to be given to SentencePiece?
 *
 * SentencePiece up to 0.2.1 trusts its model file: hostile ones make it read outside of
 * its arrays. The file is a protobuf (sentencepiece_model.proto); this walks it, with
 * every length checked, and refuses what the library would stumble over: sizes, piece
 * types and counts, user-defined pieces nested deeper than its buffer, and a character
 * map (a double-array trie, Darts) with links that leave the array, meet in a circle or
 * give more matches than its buffer holds. Pure, local. */

#include <stdbool.h>
#include <stddef.h>

#include "src/base/err.h"

enum {
    SPM_MODEL_BYTES = 64 << 20,   /* of the whole file */
    SPM_PIECES = 1 << 20,         /* in the vocabulary */
    SPM_PIECE_BYTES = 4096,       /* of one piece */
    SPM_CHARSMAP_BYTES = 4 << 20, /* of a character map; SentencePiece's own: 0.25 MB */
    SPM_NESTED_PIECES = 64,       /* user-defined ones that begin with one another */
    SPM_NESTED_RULES = 32         /* rules of a character map, likewise */
};

/* What the model promises. */
struct spm_traits {
    /* Text may be cut before any space that follows another character, and the parts
     * encoded one by one without that space: the ids are those of the whole. True of
     * BPE models that normalise nothing, put a space in front, and have no piece that
     * joins a space to what is before it, as Llama's and Mistral's: then no merge ever
     * reaches across, and the space put in front of a part stands for the one cut. */
    bool parts_at_spaces;
};

/* 0 and *traits, or -1 with err set (ERR_INPUT) naming `name` and what is wrong. */
int spm_model_check(const void *model, size_t bytes, const char *name,
                    struct spm_traits *traits, struct err *err);

/* Pieces in a model that was checked; of any other bytes, those before what is no field
 * of a model. */
int spm_model_pieces(const void *model, size_t bytes);

#endif
