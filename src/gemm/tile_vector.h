/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_TILE_VECTOR_H
#define DUSK_GEMM_TILE_VECTOR_H

/* Tile products by vector instructions; NULL where the compiler has none for the
 * level. Private to the folder. */

#include "src/gemm/tile.h"

gemm_tile_product *tile_vector(enum gemm_level level, enum dtype dtype);

#endif
