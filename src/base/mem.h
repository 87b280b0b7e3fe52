/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_MEM_H
#define DUSK_BASE_MEM_H

/* Memory of the program's own: arrays aligned to 64 bytes (a cache line, an AVX-512
 * register) and zeroed, and strings. Arrays of 2 MiB and more are aligned to huge pages
 * and ask for them, and all their pages are there when mem_array returns: a plan's
 * bytes are resident before the first step, and no step meets a page fault. All local.
 */

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

/* Tells malloc to keep what is freed, so that what libraries take and free again in
 * each step comes from the heap and not from new pages of the kernel (glibc; elsewhere
 * nothing). Once, at the start of the program. */
void mem_keep_freed(void);

/* Bytes that this process can take without swapping: what the host has (Linux's
 * MemAvailable), and what the control groups of the process leave of their limits, such
 * as a batch job's; -1: not known. */
int64_t mem_available_bytes(void);

/* The second part alone: groups is a file like /proc/self/cgroup, root where the
 * controllers are mounted. Files that the kernel would give up count as free; the
 * tightest group of those above each other decides. -1: no limit. */
int64_t mem_group_room(const char *groups, const char *root);

/* Page faults of this process so far. */
int64_t mem_page_faults(void);

/* Peak resident bytes of this process so far (getrusage). */
int64_t mem_peak_rss_bytes(void);

#endif
