/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_PLACE_H
#define DUSK_IO_HF_PLACE_H

/* Where the tensors of a model lie in a folder of safetensors files, and the order in
 * which they lie there. Local. */

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/param/table.h"

/* Of one tensor; arrays of it go by the tensor's index in the table. */
struct hf_place {
    int shard;
    enum dtype dtype;
    int64_t offset; /* first byte in the shard's file */
};

/* Tensors in the order of shards and offsets: who follows it reads or writes on. */
struct hf_order {
    int tensors;
    int *index;        /* in the table of tensors; owned */
    int64_t *elements; /* owned */
    double bytes;      /* of all in their places' dtypes */
};

/* place[table_count(s)]. 0, or -1 with err set; hf_order_fini either way. */
int hf_order_init(struct hf_order *o, const struct model_shape *s,
                  const struct hf_place *place, struct err *err);
void hf_order_fini(struct hf_order *o);

#endif
