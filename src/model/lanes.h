/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_LANES_H
#define DUSK_MODEL_LANES_H

/* Sums over a row in an order that is written down: element i goes to lane i mod 16,
 * lanes are added by halves. Compilers make vector code of it and may not reorder it,
 * so the bits depend on the row alone: not on its address, nor on the CPU. */

enum { LANES = 16, LANES_BLOCK = 1024 };

static inline float lanes_sum(float *lane)
{
    for (int w = LANES / 2; w; w /= 2)
        for (int j = 0; j < w; j++)
            lane[j] += lane[j + w];
    return lane[0];
}

/* Sum of x[i] y[i]. */
static inline float lanes_dot(const float *x, const float *y, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[i + j] * y[i + j];
    for (int j = 0; j < n - i; j++)
        lane[j] += x[i + j] * y[i + j];
    return lanes_sum(lane);
}

/* Sum of x[i]: blocks of LANES_BLOCK in lanes, their sums in double in order. */
static inline double lanes_total(const float *x, int n)
{
    double total = 0;
    for (int begin = 0; begin < n; begin += LANES_BLOCK) {
        float lane[LANES] = {0};
        int end = n - begin < LANES_BLOCK ? n : begin + LANES_BLOCK, i = begin;
        for (; i + LANES <= end; i += LANES)
            for (int j = 0; j < LANES; j++)
                lane[j] += x[i + j];
        for (int j = 0; j < end - i; j++)
            lane[j] += x[i + j];
        total += (double)lanes_sum(lane);
    }
    return total;
}

/* Largest x[i], n >= 1; NaNs are passed over (-inf if there is nothing else). */
static inline float lanes_max(const float *x, int n)
{
    float lane[LANES];
    for (int j = 0; j < LANES; j++)
        lane[j] = -__builtin_inff();
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int j = 0; j < n - i; j++)
        lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int w = LANES / 2; w; w /= 2)
        for (int j = 0; j < w; j++)
            lane[j] = lane[j + w] > lane[j] ? lane[j + w] : lane[j];
    return lane[0];
}

#endif
