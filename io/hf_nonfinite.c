/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_nonfinite.h"

enum { SHOWN = 10, LABEL_ROOM = 96 };

/* Sums stay in the width of the elements, so that compilers make vector code of it:
 * blocks are short enough for 16 bits. */
enum { BLOCK = 32768 };

static int64_t count16(const uint16_t *x, int64_t n, uint16_t exponent)
{
    int64_t total = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t m = n - at < BLOCK ? n - at : BLOCK;
        uint16_t found = 0;
        for (int64_t i = 0; i < m; i++)
            found = (uint16_t)(found + ((x[at + i] & exponent) == exponent));
        total += found;
    }
    return total;
}

static int64_t count32(const uint32_t *x, int64_t n)
{
    int64_t total = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t m = n - at < BLOCK ? n - at : BLOCK;
        uint32_t found = 0;
        for (int64_t i = 0; i < m; i++)
            found += (x[at + i] & 0x7f800000u) == 0x7f800000u;
        total += found;
    }
    return total;
}

int64_t nonfinite_count(enum dtype t, const void *values, int64_t n)
{
    if (t == DTYPE_F32)
        return count32(values, n);
    return count16(values, n, t == DTYPE_BF16 ? 0x7f80 : 0x7c00);
}

void nonfinite_warn(const struct log *log, const char *what,
                    const struct model_shape *s, const int64_t *found,
                    const int64_t *made)
{
    int more = 0, shown = 0;
    for (int i = 0; i < table_count(s); i++) {
        if (found[i] == 0)
            continue;
        if (shown == SHOWN) {
            more++;
            continue;
        }
        struct tensor t = table_at(s, i);
        char name[LABEL_ROOM];
        tensor_hf_name(&t, name, sizeof name);
        shown++;
        if (made[i])
            log_warning(log,
                        "%s: %s: %lld of %lld values are NaN or Inf, %lld of them too "
                        "large for the dtype asked for",
                        what, name, (long long)found[i], (long long)t.elements,
                        (long long)made[i]);
        else
            log_warning(log, "%s: %s: %lld of %lld values are NaN or Inf", what, name,
                        (long long)found[i], (long long)t.elements);
    }
    if (more)
        log_warning(log, "%s: %d more tensors hold NaN or Inf", what, more);
}
