/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_chunks.h"

static int64_t chunks_of(int64_t elements)
{
    return (elements + HF_CHUNK - 1) / HF_CHUNK;
}

/* Moves k->tensor and k->begin over `skip` chunks. */
static void skip_chunks(struct hf_chunks *k, int64_t skip)
{
    while (skip > 0) {
        int64_t here = chunks_of(k->elements[k->tensor]);
        if (skip < here) {
            k->begin = skip * HF_CHUNK;
            return;
        }
        skip -= here;
        k->tensor++;
    }
}

void hf_chunks_begin(struct hf_chunks *k, const int64_t *elements, int tensors,
                     int rank, int ranks)
{
    *k = (struct hf_chunks){.elements = elements, .tensors = tensors};
    int64_t total = 0;
    for (int i = 0; i < tensors; i++)
        total += chunks_of(elements[i]);
    int64_t first = total * rank / ranks;
    k->left = total * (rank + 1) / ranks - first;
    skip_chunks(k, first);
}

bool hf_chunks_next(struct hf_chunks *k)
{
    k->begin += k->n;
    k->n = 0;
    if (k->left == 0)
        return false;
    while (k->begin == k->elements[k->tensor]) {
        k->tensor++;
        k->begin = 0;
    }
    int64_t rest = k->elements[k->tensor] - k->begin;
    k->n = rest < HF_CHUNK ? rest : HF_CHUNK;
    k->left--;
    return true;
}
