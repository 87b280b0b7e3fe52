/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/sdpo.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/mem.h"

struct place {
    double margin;
    int64_t pair;
};

static int harder(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->margin != y->margin)
        return x->margin > y->margin ? -1 : 1;
    return x->pair < y->pair ? -1 : x->pair > y->pair;
}

int sdpo_order(int64_t n, const struct pair_sums *start, int64_t *order,
               struct err *err)
{
    struct place *place = mem_array(n, sizeof *place, err);
    if (!place)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        double margin = start[i].chosen - start[i].rejected;
        place[i] = (struct place){isnan(margin) ? -INFINITY : margin, i};
    }
    qsort(place, (size_t)n, sizeof *place, harder);
    for (int64_t i = 0; i < n; i++)
        order[i] = place[i].pair;
    mem_free(place);
    return 0;
}

int64_t sdpo_begin(int64_t n, int chunks, int k)
{
    return n / chunks * k + n % chunks * k / chunks;
}
