/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/master.h"

#include "src/base/clones.h"

#include <stddef.h>

enum { PART = 16384 }; /* elements that a thread takes at a time */

CLONES static void split_part(int64_t n, const float *restrict master,
                              uint16_t *restrict weight, int16_t *restrict rest)
{
    for (int64_t i = 0; i < n; i++) {
        weight[i] = master_weight(master[i]);
        rest[i] = master_rest(master[i]);
    }
}

CLONES static void round_part(int64_t n, const float *restrict master,
                              uint16_t *restrict weight)
{
    for (int64_t i = 0; i < n; i++)
        weight[i] = master_weight(master[i]);
}

CLONES static void gather_part(int64_t n, const uint16_t *restrict weight,
                               const int16_t *restrict rest, float *restrict master)
{
    for (int64_t i = 0; i < n; i++)
        master[i] = master_join(weight[i], rest[i]);
}

CLONES static void widen_part(int64_t n, const uint16_t *restrict weight,
                              float *restrict master)
{
    for (int64_t i = 0; i < n; i++)
        master[i] = master_join(weight[i], 0);
}

static int64_t part_at(int64_t n, int64_t begin)
{
    return n - begin < PART ? n - begin : PART;
}

void master_split(int64_t n, const float *master, uint16_t *weight, int16_t *rest)
{
#pragma omp parallel for schedule(static) if (n > PART)
    for (int64_t at = 0; at < n; at += PART)
        if (rest)
            split_part(part_at(n, at), master + at, weight + at, rest + at);
        else
            round_part(part_at(n, at), master + at, weight + at);
}

void master_gather(int64_t n, const uint16_t *weight, const int16_t *rest,
                   float *master)
{
#pragma omp parallel for schedule(static) if (n > PART)
    for (int64_t at = 0; at < n; at += PART)
        if (rest)
            gather_part(part_at(n, at), weight + at, rest + at, master + at);
        else
            widen_part(part_at(n, at), weight + at, master + at);
}
