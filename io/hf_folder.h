/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_FOLDER_H
#define DUSK_IO_HF_FOLDER_H

/* A folder that appears complete or not at all: filled under a temporary name beside
 * the final one, then renamed. All local; one rank calls. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/log.h"
#include "src/base/err.h"

struct hf_folder {
    char *path, *temporary; /* owned */
};

/* Makes the temporary folder. PATH may be there if it is empty; with `force` also if it
 * is a model folder (has config.json, no folder in it), else ERR_USAGE. Fewer than
 * `bytes` free on its file system is ERR_IO. -1 with err set, nothing left. */
int hf_folder_create(struct hf_folder *f, const char *path, bool force, int64_t bytes,
                     struct err *err);

/* Writes a whole new file in the temporary folder, synced. A name that leads elsewhere
 * (it comes out of a checkpoint) is ERR_INPUT. */
int hf_folder_put(const struct hf_folder *f, const char *name, const void *data,
                  size_t bytes, struct err *err);

/* Syncs the folder and renames it; an old one is swapped out and removed (what cannot
 * be removed is a warning). Frees f in any case; on failure nothing is left. */
int hf_folder_commit(struct hf_folder *f, const struct log *log, struct err *err);

/* Removes the temporary folder and frees f. One never created (zeroed) is fine. */
void hf_folder_abort(struct hf_folder *f);

#endif
