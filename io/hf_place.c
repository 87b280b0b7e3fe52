/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_place.h"

#include "src/base/mem.h"

#include <stdlib.h>

struct key {
    int index;
    struct hf_place place;
};

static int by_place(const void *a, const void *b)
{
    const struct hf_place *x = &((const struct key *)a)->place;
    const struct hf_place *y = &((const struct key *)b)->place;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

int hf_order_init(struct hf_order *o, const struct model_shape *s,
                  const struct hf_place *place, struct err *err)
{
    int n = table_count(s);
    *o = (struct hf_order){.tensors = n};
    struct key *key = mem_array(n, sizeof *key, err);
    o->index = key ? mem_array(n, sizeof *o->index, err) : NULL;
    o->elements = o->index ? mem_array(n, sizeof *o->elements, err) : NULL;
    if (!o->elements) {
        mem_free(key);
        return -1;
    }
    for (int i = 0; i < n; i++)
        key[i] = (struct key){i, place[i]};
    qsort(key, (size_t)n, sizeof *key, by_place);
    for (int i = 0; i < n; i++) {
        o->index[i] = key[i].index;
        o->elements[i] = table_at(s, key[i].index).elements;
        o->bytes += (double)o->elements[i] * (double)dtype_bytes(key[i].place.dtype);
    }
    mem_free(key);
    return 0;
}

void hf_order_fini(struct hf_order *o)
{
    mem_free(o->index);
    mem_free(o->elements);
    *o = (struct hf_order){0};
}
