/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_MEM_H
#define DUSK_BASE_MEM_H

/* Memory of the program's own: arrays aligned to 64 bytes (a cache line, an AVX-512
 * register) and zeroed, and strings. All local. */

#include <stddef.h>
#include <stdint.h>

/* count x size zeroed bytes, owned by the caller, freed by mem_free. count or size 0
 * gives a valid pointer. NULL with err set (ERR_OTHER, names the bytes asked for) when
 * there is no memory or the product overflows. */
struct err;
void *mem_array(int64_t count, size_t size, struct err *err);
void mem_free(void *p); /* NULL is fine */

/* Formatted string, owned by the caller, freed by free(). NULL with err set. */
char *mem_printf(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Peak resident bytes of this process so far (getrusage). */
int64_t mem_peak_rss_bytes(void);

#endif
