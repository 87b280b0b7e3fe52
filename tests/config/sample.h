/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_CONFIG_SAMPLE_H
#define DUSK_TESTS_CONFIG_SAMPLE_H

/* The shortest run files that are accepted: from a checkpoint, and from nothing. Line
 * numbers matter to the tests. */

static const char sample[] = "run:\n"                    /* 1 */
                             "  name: first\n"           /* 2 */
                             "model:\n"                  /* 3 */
                             "  init: base.h5\n"         /* 4 */
                             "data:\n"                   /* 5 */
                             "  train: [{path: a.h5}]\n" /* 6 */
                             "  seq_len: 128\n"          /* 7 */
                             "train:\n"                  /* 8 */
                             "  steps: 100\n"            /* 9 */
                             "  global_batch: 8\n"       /* 10 */
                             "optim:\n"                  /* 11 */
                             "  lr: 1e-3\n";             /* 12 */

static const char sample_random[] = "run: {name: second, seed: 3}\n"
                                    "model:\n"
                                    "  init: random\n"
                                    "  shape:\n"
                                    "    num_hidden_layers: 4\n"
                                    "    hidden_size: 64\n"
                                    "    intermediate_size: 176\n"
                                    "    num_attention_heads: 4\n"
                                    "    vocab_size: 512\n"
                                    "data: {train: [{path: a.h5}], seq_len: 128}\n"
                                    "train: {steps: 100, global_batch: 8}\n"
                                    "optim: {lr: 1e-3}\n";

#endif
