/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_REFERENCE_H
#define DUSK_IO_REFERENCE_H

/* The cache of reference log-probabilities: of every pair of a preference set, the
 * summed log-probability of both completions under a model that is not trained. They
 * are computed once, by forward passes over the whole set, and read again by every run
 * that needs the same ones.
 *
 *   /log_probabilities  [pairs][2] F64: chosen, rejected; nats, summed over the counted
 *                       tokens. Any bits are kept: NaN, -0.0
 *   attributes of /: format "dusk reference", version, and the key: weights, data,
 *   template_hash, precision, pairs
 *
 * A sealed file (io/sealed.h), whose bytes depend on key and values alone. While it is
 * made, PATH.part holds what is known so far: an append-only log that begins with the
 * key's hash, and has a checksum on each block, so that a killed run goes on where it
 * was. A part is not synced: what a crash of the whole machine takes off its end is
 * computed again.
 *
 * All functions are local: one rank calls them, and shares the values. */

#include <stdint.h>

#include "io/sealed.h"

/* What log-probabilities depend on. Strings are borrowed and never NULL. */
struct reference_key {
    const char *weights;       /* which model: a checkpoint's seal and layer map */
    const char *data;          /* which pairs: a set's seal, or seal and chunk */
    const char *template_hash; /* of the set's chat template */
    const char *precision;     /* "fp32", "bf16" */
    int64_t pairs;             /* >= 1 */
};

enum { REFERENCE_NAME = 30 };

/* "reference-%016x.h5" of the hash (XXH3-64) of all fields: for a file that belongs to
 * a key and no other. */
void reference_name(const struct reference_key *k, char name[REFERENCE_NAME]);

/* The key of an open file; its strings live as long as `file`. A file that is no
 * reference, or whose array does not fit its key, is ERR_INPUT. */
int reference_key_of(const struct sealed *file, struct reference_key *k,
                     struct err *err);

/* Does the file at path hold what the key asks for? 1: yes, and sums[pairs][2] are
 * filled (chosen, rejected; nats). 0: there is no such file. -1 with err set: it cannot
 * be read, is damaged, is no reference, or was made for another key (ERR_INPUT, naming
 * the first field that differs); sums may be filled in part. */
int reference_read(const char *path, const struct reference_key *k, double *sums,
                   struct err *err);

struct reference_writer;

/* Begins to make PATH, or goes on with PATH.part: *done pairs, from 0, are known
 * already and in sums[pairs][2]; the rest of sums is left alone. Of a part only what is
 * whole and of this key is used, the rest is dropped; a file that is no part at all is
 * ERR_INPUT. Where another process is making the same part, this one works without:
 * *done is 0, and nothing is left to go on with. An existing PATH stays until it is
 * replaced by reference_commit. Owned; NULL with err set, nothing left on disk. */
struct reference_writer *reference_begin(const char *path,
                                         const struct reference_key *k, double *sums,
                                         int64_t *done, struct err *err);

/* Adds pairs [done, done + n), n >= 1, from sums[n][2]. They are in the part when it
 * returns 0; after -1 (ERR_IO) they are not, and the writer is as before. */
int reference_append(struct reference_writer *w, int64_t n, const double *sums,
                     struct err *err);

/* Makes PATH of all pairs, which were appended, synced and whole or not at all, and
 * removes the part. Frees *w and sets it to NULL in any case; on failure the part stays
 * and reference_begin finds all pairs in it. */
int reference_commit(struct reference_writer **w, struct err *err);

void reference_close(struct reference_writer *w); /* keeps the part; NULL is fine */

#endif
