/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_STAGE_H
#define DUSK_IO_TOKEN_STAGE_H

/* Where a token set grows until it is whole, and how it gets its name. All temporaries
 * lie beside the output and start with OUTPUT.tmp-; each run has a random part of its
 * own, so that two runs never read each other's. What a killed run left is removed by
 * the next one with the same output. */

#include <stdbool.h>

#include "mpi/comm.h"

struct token_stage {
    bool valid;       /* is there a second set? */
    char *output[2];  /* final names: the set, its validation set (or NULL) */
    char *partial[2]; /* the names that they grow under */
    char *spill;      /* this rank's file of encoded chunks */
    char *failed;     /* exists once a rank has failed; others look for it */
    char *prefix;     /* OUTPUT.tmp-RANDOM */
};

/* Names are made, leftovers of earlier runs removed. An output that exists without
 * `force` is ERR_USAGE. -1 on every rank with err set. Collective over c. */
int token_stage_begin(struct token_stage *s, struct comm *c, const char *output,
                      bool valid, bool force, struct err *err);

/* Name of another rank's spill file, owned (free). Local. */
char *token_stage_spill_of(const struct token_stage *s, int rank, struct err *err);

/* Gives the finished partial files their final names: both or none. Collective. */
int token_stage_publish(struct token_stage *s, struct comm *c, struct err *err);

/* Removes what is left of this run and frees the names. Collective. */
void token_stage_end(struct token_stage *s, struct comm *c);

#endif
