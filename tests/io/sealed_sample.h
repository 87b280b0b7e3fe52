/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_IO_SEALED_SAMPLE_H
#define DUSK_TESTS_IO_SEALED_SAMPLE_H

/* A small sealed file with every kind of array and attribute, for tests. */

#include "io/sealed.h"

enum { SAMPLE_STACK, SAMPLE_FLAT, SAMPLE_TEXT, SAMPLE_EMPTY, SAMPLE_ARRAYS };

/* Byte i of a layer of an array, as it should be read. */
static inline unsigned char sample_byte(int array, int64_t layer, int64_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u;
    x ^= x >> 15;
    x += (uint32_t)(64 * array + layer) * 2246822507u;
    return (unsigned char)((x * 3266489909u) >> 24);
}

static const struct sealed_array sample_array[SAMPLE_ARRAYS] = {
    /* 90,000 bytes a layer: one block and a part of one */
    {.path = "/model/layers/q_proj",
     .type = SEALED_BF16,
     .dims = 3,
     .dim = {3, 150, 300},
     .stacked = true},
    {.path = "/model/norm", .type = SEALED_F32, .dims = 1, .dim = {70000}},
    {.path = "/tokenizer/tokenizer.model", .type = SEALED_U8, .dims = 1, .dim = {11}},
    {.path = "/tokenizer/empty", .type = SEALED_U8, .dims = 1, .dim = {0}}};

static const int64_t sample_ints[] = {3, -1, INT64_C(1) << 40};
static const struct sealed_attr sample_attr[] = {
    {.group = "/", .name = "format", .kind = SEALED_STRING, .s = "sample"},
    {.group = "/model", .name = "layers", .kind = SEALED_INT, .i = -3},
    {.group = "/model", .name = "eps", .kind = SEALED_DOUBLE, .d = 1e-5},
    {.group = "/model", .name = "none", .kind = SEALED_STRING, .s = ""},
    {.group = "/state/run",
     .name = "ints",
     .kind = SEALED_INTS,
     .ints = sample_ints,
     .n = 3},
    {.group = "/model/norm",
     .name = "units",
     .kind = SEALED_STRING,
     .s = "none, \xc2\xb5"}};
enum { SAMPLE_ATTRS = sizeof sample_attr / sizeof *sample_attr };

#endif
