/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_DTYPE_H
#define DUSK_BASE_DTYPE_H

/* The floating types of weights: F32, BF16 (8-bit exponent, 7-bit fraction) and F16
 * (IEEE binary16). Arrays are little-endian in files and in memory. All local. */

#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };

size_t dtype_bytes(enum dtype t);     /* of one element */
const char *dtype_name(enum dtype t); /* "F32", "BF16", "F16": safetensors' names */

/* 0, or -1 (nothing written) for a name that is none of the three; case as above. */
int dtype_parse(const char *name, enum dtype *t);

/* The narrowest type that holds every value of both: BF16 with F16 gives F32. */
enum dtype dtype_widest(enum dtype a, enum dtype b);

/* n elements, no overlap. Widening is exact (NaN payloads kept as far as they fit);
 * narrowing rounds to nearest even, overflow gives Inf, NaN stays NaN. */
void dtype_to_f32(enum dtype from, const void *src, int64_t n, float *dst);
void dtype_from_f32(enum dtype to, const float *src, int64_t n, void *dst);

float bf16_to_f32(uint16_t bits);
uint16_t bf16_from_f32(float value);
float f16_to_f32(uint16_t bits);
uint16_t f16_from_f32(float value);

#endif
