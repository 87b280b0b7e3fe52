/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_OBJECTIVE_ORACLE_PAIRS_H
#define DUSK_TESTS_OBJECTIVE_ORACLE_PAIRS_H

/* The pairs and losses of tests/oracle/align/dpo.json. Places as in facts.h. */

#include "src/objective/preference.h"
#include "tests/support/facts.h"

enum { ORACLE_PAIRS = 8, ORACLE_CASES = 2 };
extern const char *const oracle_cases[ORACLE_CASES];

struct facts *oracle_dpo(void); /* owned */

/* The sums of a case ("policy_near") and the token counts, [ORACLE_PAIRS]. */
void oracle_pairs(const struct facts *f, const char *name,
                  struct preference_pair *pair);

/* Of all pairs in one step. */
struct preference_step oracle_step(const struct preference_pair *pair);

/* Settings of the loss at `place`. */
struct preference_settings oracle_settings(const struct facts *f, const char *place);

/* ORACLE_PAIRS numbers at place/key; owned (free). */
double *oracle_numbers(const struct facts *f, const char *place, const char *key);

#endif
