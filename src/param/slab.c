/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/slab.h"

#include "src/base/check.h"

#include <stdlib.h>

enum { ALIGN_ELEMENTS = 16 }; /* 64 bytes of fp32 */

static int64_t place(int64_t *end, int64_t elements)
{
    int64_t at = *end;
    *end = (at + elements + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    return at;
}

static void add(struct slab *slab, struct tensor t)
{
    slab->entry[slab->entries++] = (struct slab_entry){
        .tensor = t,
        .weight_at = place(&slab->weights, t.elements),
        .grad_at = place(&slab->grads, t.elements),
    };
}

static void add_tied_head(struct slab *slab, const struct model_shape *s)
{
    struct tensor t = table_find(s, ROLE_EMBED_TOKENS, -1);
    const struct slab_entry *embed = slab_find(slab, ROLE_EMBED_TOKENS, -1, false);
    int64_t weight_at = embed ? embed->weight_at : place(&slab->weights, t.elements);
    slab->entry[slab->entries++] = (struct slab_entry){
        .tensor = t,
        .weight_at = weight_at,
        .grad_at = place(&slab->grads, t.elements),
        .tied_head = true,
    };
}

static bool holds(const struct stage_part *part, const struct tensor *t)
{
    if (role_per_layer(t->role))
        return t->layer >= part->first && t->layer < part->first + part->layers;
    return t->role == ROLE_EMBED_TOKENS ? part->embed : part->head;
}

int slab_init_parts(struct slab *slab, const struct model_shape *s, int parts,
                    const struct stage_part *part, struct err *err)
{
    bool head = false;
    *slab = (struct slab){0};
    slab->entry = calloc((size_t)table_count(s) + 1, sizeof *slab->entry);
    if (!slab->entry)
        return err_set(err, ERR_OTHER, "no memory for a list of %d tensors",
                       table_count(s));
    for (int k = 0; k < parts; k++) {
        int first = part[k].first, end = first + part[k].layers;
        CHECK(first >= 0 && end >= first && end <= s->layers, "layers %d to %d of %d",
              first, end, s->layers);
        head = head || part[k].head;
    }
    for (int i = 0; i < table_count(s); i++) {
        struct tensor t = table_at(s, i);
        for (int k = 0; k < parts; k++)
            if (holds(&part[k], &t))
                add(slab, t);
    }
    if (head && s->tied)
        add_tied_head(slab, s);
    return 0;
}

int slab_init(struct slab *slab, const struct model_shape *s, int first, int layers,
              bool embed, bool head, struct err *err)
{
    const struct stage_part part = {first, layers, embed, head};
    return slab_init_parts(slab, s, 1, &part, err);
}

void slab_freeze(struct slab *slab, const struct freeze *f)
{
    slab->grads = 0;
    for (int i = 0; i < slab->entries; i++) {
        struct slab_entry *e = &slab->entry[i];
        e->frozen = freeze_holds(f, &e->tensor);
        e->grad_at = e->frozen ? -1 : place(&slab->grads, e->tensor.elements);
    }
}

void slab_fini(struct slab *slab)
{
    free(slab->entry);
    *slab = (struct slab){0};
}

const struct slab_entry *slab_find(const struct slab *slab, enum tensor_role r,
                                   int layer, bool tied_head)
{
    for (int i = 0; i < slab->entries; i++) {
        const struct slab_entry *e = &slab->entry[i];
        if (e->tensor.role == r && e->tensor.layer == layer &&
            e->tied_head == tied_head)
            return e;
    }
    return NULL;
}

bool slab_adjoins(int64_t elements)
{
    return elements % ALIGN_ELEMENTS == 0;
}
