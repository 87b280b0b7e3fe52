/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/suggest.h"

#include <stddef.h>
#include <string.h>

enum { WORD_MAX = 63 }; /* longer words get no suggestion */

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Edit distance with swaps of neighbours (optimal string alignment), by rows. */
static int distance(const char *a, int n, const char *b, int m)
{
    int rows[3][WORD_MAX + 1], *before = rows[0], *last = rows[1], *row = rows[2];
    for (int j = 0; j <= m; j++)
        last[j] = j;
    for (int i = 1; i <= n; i++) {
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            row[j] = least(last[j - 1] + (a[i - 1] != b[j - 1]),
                           least(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        int *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[m];
}

struct suggest suggest_for(const char *word)
{
    return (struct suggest){.word = word, .distance = (int)(strlen(word) / 3) + 2};
}

void suggest_try(struct suggest *s, const char *candidate)
{
    size_t n = strlen(s->word), m = strlen(candidate);
    if (n > WORD_MAX || m > WORD_MAX)
        return;
    int d = distance(s->word, (int)n, candidate, (int)m);
    if (d < s->distance) {
        s->distance = d;
        s->best = candidate;
    }
}
