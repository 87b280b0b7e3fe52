/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_BENCH_REPORT_H
#define DUSK_TRAIN_BENCH_REPORT_H

/* What `dusk bench` found, for people and for machines. Rank 0. Local. */

#include <stdio.h>

#include "src/train/bench.h"

/* The rows as a table, median and quartiles. */
void bench_print(const struct bench *b, FILE *to);

/* One object: host, cpu, threads, ranks, load, fp32, bf16, size, rows. `section` NULL:
 * all rows; else those of one section. */
void bench_json(const struct bench *b, const char *section, struct json *j);

/* Writes FOLDER/SECTION.json for each section that has rows, where FOLDER is
 * dusk/HOST in $XDG_CACHE_HOME or ~/.cache: this machine's profile. *folder: owned
 * (free), NULL where there is no home. ERR_IO. */
int bench_save_profile(const struct bench *b, char **folder, struct err *err);

#endif
