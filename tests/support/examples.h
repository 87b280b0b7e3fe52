/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_SUPPORT_EXAMPLES_H
#define DUSK_TESTS_SUPPORT_EXAMPLES_H

/* The chats and instructions of tests/oracle/align/sft_examples.json as records, in the
 * order in which sft_records.json has them under a template. */

#include "src/base/record.h"

struct examples;
struct examples *examples_load(void); /* owned */
void examples_destroy(struct examples *e);

/* Example i under a template: chats first, then instructions; alpaca and the plain ones
 * have the instructions alone, plain_text as instruction, space, output. Lives as long
 * as e, its messages until the next call. */
struct record examples_record(struct examples *e, const char *template, int i);

#endif
