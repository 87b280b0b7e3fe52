/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_SCHEMA_H
#define DUSK_CONFIG_SCHEMA_H

/* Every key of a run file, once: where it goes in struct run, its type, range, default
 * and explanation. Reading, writing, the reference file and error messages walk this
 * table; to add a key, add a field to struct run and a row here (and, if it depends on
 * another key, a rule in src/config/rules.c). Local. */

#include <stdbool.h>
#include <stddef.h>

#include "src/config/run.h"

enum key_type {
    KEY_TEXT,       /* char * */
    KEY_BOOL,       /* bool */
    KEY_INT,        /* int */
    KEY_I64,        /* int64_t */
    KEY_U64,        /* uint64_t */
    KEY_DOUBLE,     /* double */
    KEY_CHOICE,     /* an enum: the place in `choices` */
    KEY_INIT,       /* model.init: a path, or `random` for NULL */
    KEY_BETAS,      /* optim.betas: beta1, beta2 */
    KEY_PIPE,       /* parallel.schedule: one of `choices` or a path that ends in .csv */
    KEY_SPLIT,      /* parallel.split: auto or a list */
    KEY_KEYS,       /* checkpoint.resume_allow: a list of keys or sections */
    KEY_PATTERNS,   /* train.freeze: a list of text */
    KEY_TRAIN_SETS, /* data.train: a list of {path, weight} */
    KEY_VALID_SETS  /* data.valid: a list of {name, path} */
};

/* When a key means something. Where it does not, it may be absent or null only. */
enum key_when { WHEN_ALWAYS, WHEN_RANDOM, WHEN_CHECKPOINT, WHEN_WSD, WHEN_DPO };

struct key {
    const char *path; /* "optim.lr" */
    enum key_type type;
    size_t offset;              /* in struct run; 0 for the types that name their key */
    const char *missing;        /* the default, YAML; NULL: the key is required */
    double min, max;            /* numbers, both allowed... */
    bool above_min;             /* ...but not min itself */
    const char *const *choices; /* ends with NULL */
    enum key_when when;
    const char *example; /* for the reference file, YAML; NULL: the default */
    const char *help;    /* one line: what it is, units */
};

struct section {
    const char *path; /* "model.shape" */
    const char *help;
};

extern const struct key schema_keys[];         /* ends with path NULL */
extern const struct section schema_sections[]; /* the same */

const struct key *schema_find(const char *path);             /* NULL: no such key */
const struct section *schema_find_section(const char *path); /* NULL: none */

/* Is the key directly in this section ("" has none)? Returns its last word, or NULL. */
const char *schema_leaf(const struct key *k, const char *section);

bool schema_applies(const struct key *k, const struct run *r);
const char *schema_condition(const struct key *k); /* "model.init: random" */

/* configs/reference.yaml: every key with explanation, range and default. Owned (free).
 */
char *schema_reference(struct err *err);

#endif
