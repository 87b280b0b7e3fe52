/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_SUGGEST_H
#define DUSK_BASE_SUGGEST_H

/* "Did you mean ...?": the candidate that is closest to a mistyped word. Closeness is
 * the number of letters changed, dropped, added or swapped with their neighbour; a
 * candidate further off than a third of the word (and one letter) is no suggestion.
 *
 *     struct suggest s = suggest_for("optm");
 *     for (...) suggest_try(&s, candidate);
 *     if (s.best) ...
 */

struct suggest {
    const char *word; /* borrowed */
    const char *best; /* a candidate (borrowed), or NULL */
    int distance;     /* of best; without one, the first that is too far */
};

struct suggest suggest_for(const char *word);
void suggest_try(struct suggest *s, const char *candidate);

#endif
