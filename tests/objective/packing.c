/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/packing.h"

#include "src/base/clock.h"
#include "src/base/rng.h"
#include "tests/support/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int32_t cut(int32_t length, int32_t max_length)
{
    return length < max_length ? length : max_length;
}

static void pack(struct packing *p, const int32_t *length, int32_t n, int32_t max)
{
    struct err err = {0};
    if (packing_init(p, length, n, max, &err))
        fail_msg("%s", err.text);
}

/* ---- against TRL ---- */

static void equals_trl(void **state)
{
    (void)state;
    struct facts *f = facts_load("../align/pack.json");
    int n;
    int32_t max = (int32_t)facts_int(f, "max_length"), token = 0;
    int32_t *length = facts_ints(f, "lengths", &n);
    struct packing p;
    pack(&p, length, n, max);
    assert_int_equal(p.packs, facts_count(f, "packs"));
    for (int32_t i = 0; i < p.packs; i++) {
        char place[32];
        int parts;
        snprintf(place, sizeof place, "packs/%d", i);
        int32_t *part = facts_ints(f, place, &parts), offset = 0;
        assert_int_equal(3 * (p.pack_begin[i + 1] - p.pack_begin[i]), parts);
        for (int k = 0; k < parts / 3; k++) {
            int32_t document = p.document[p.pack_begin[i] + k];
            int32_t tokens = cut(length[document], max);
            assert_int_equal(document, part[3 * k]);
            assert_int_equal(tokens, part[3 * k + 1]);
            assert_int_equal(offset, part[3 * k + 2]);
            offset += tokens;
        }
        token += offset;
        free(part);
    }
    assert_int_equal(p.tokens, token);
    printf("%d documents, %d packs, %lld tokens; %d cut by %lld tokens, %d empty\n", n,
           p.packs, (long long)p.tokens, p.cut_documents, (long long)p.cut_tokens,
           p.empty_documents);
    packing_fini(&p);
    free(length);
    facts_destroy(f);
}

/* ---- against the rule in words ---- */

enum { SMALL = 400 };

/* The rule with every pack looked at for every document. `since`: when the pack came
 * to its room. Sets the pack of each document (-1: dropped) and its rank among all
 * placed; returns the packs. */
static int naive(const int32_t *length, int n, int32_t max, int *pack_of, int *placed)
{
    int32_t room[SMALL];
    int since[SMALL], packs = 0, now = 0;
    for (int i = 0; i < n; i++)
        pack_of[i] = -1;
    for (;; now++) {
        int next = -1, best = -1;
        for (int i = 0; i < n; i++)
            if (pack_of[i] < 0 && length[i] > 0 &&
                (next < 0 || cut(length[i], max) > cut(length[next], max)))
                next = i;
        if (next < 0)
            return packs;
        int32_t tokens = cut(length[next], max);
        for (int k = 0; k < packs; k++)
            if (room[k] >= tokens &&
                (best < 0 || room[k] < room[best] ||
                 (room[k] == room[best] && since[k] < since[best])))
                best = k;
        if (best < 0) {
            best = packs++;
            room[best] = max;
        }
        room[best] -= tokens;
        since[best] = now;
        pack_of[next] = best;
        placed[next] = now;
    }
}

static void compare(const int32_t *length, int n, int32_t max)
{
    int pack_of[SMALL], placed[SMALL], kept = 0;
    struct packing p;
    pack(&p, length, n, max);
    int packs = naive(length, n, max, pack_of, placed);
    assert_int_equal(p.packs, packs);
    assert_int_equal(p.pack_begin[0], 0);
    assert_int_equal(p.pack_begin[packs], p.documents);
    for (int32_t i = 0; i < packs; i++) {
        assert_true(p.pack_begin[i] < p.pack_begin[i + 1]);
        for (int32_t k = p.pack_begin[i]; k < p.pack_begin[i + 1]; k++) {
            int32_t document = p.document[k];
            assert_in_range(document, 0, n - 1);
            assert_int_equal(pack_of[document], i);
            if (k > p.pack_begin[i])
                assert_true(placed[p.document[k - 1]] < placed[document]);
        }
    }
    int64_t tokens = 0, all = 0;
    int cuts = 0;
    for (int i = 0; i < n; i++) {
        kept += pack_of[i] >= 0;
        tokens += cut(length[i], max);
        all += length[i];
        cuts += length[i] > max;
    }
    assert_int_equal(p.documents, kept);
    assert_int_equal(p.empty_documents, n - kept);
    assert_int_equal(p.tokens, tokens);
    assert_int_equal(p.cut_tokens, all - tokens);
    assert_int_equal(p.cut_documents, cuts);
    packing_fini(&p);
}

static void equals_the_rule(void **state)
{
    (void)state;
    static const int32_t max[] = {1,  2,   3,    10,   63,   64,
                                  65, 100, 4095, 4096, 5000, 300000};
    enum { MAXES = sizeof max / sizeof *max };
    uint64_t draw = 0;
    for (uint64_t trial = 0; trial < 600; trial++) {
        int32_t length[SMALL], m = max[trial % MAXES];
        int n = (int)(rng_u64(1, trial, 0) % (trial % 5 ? 40 : SMALL));
        uint64_t kinds = 1 + rng_u64(1, trial, 1) % 4;
        for (int i = 0; i < n; i++) {
            uint64_t u = rng_u64(2, trial, draw++), largest = (uint64_t)m + 3;
            if (kinds == 1) /* few lengths, many ties */
                largest = (uint64_t)m / 7 + 3;
            if (kinds == 2) /* short ones: packs of many */
                largest = (uint64_t)m / 20 + 2;
            length[i] = (int32_t)(u % (largest + 1));
            if (kinds == 4 && u >> 60 == 0) /* some far too long */
                length[i] = INT32_MAX;
        }
        compare(length, n, m);
    }
    printf("600 sets, %llu documents\n", (unsigned long long)draw);
}

/* ---- edges ---- */

static void holds_at_the_edges(void **state)
{
    (void)state;
    static const int32_t none[] = {0, 0, 0};
    struct packing p;
    pack(&p, NULL, 0, 8);
    assert_int_equal(p.packs, 0);
    assert_int_equal(p.pack_begin[0], 0);
    packing_fini(&p);
    pack(&p, none, 3, 8);
    assert_int_equal(p.packs, 0);
    assert_int_equal(p.empty_documents, 3);
    packing_fini(&p);
    struct err err = {0};
    assert_int_equal(packing_init(&p, none, INT32_MAX, 8, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "found 2147483647"));
    assert_null(p.document);
    packing_fini(&p);
}

/* TRL packs slices of 1000 documents and needs 1250 packs here; the whole set, 1000. */
static void the_whole_set_is_packed_at_once(void **state)
{
    (void)state;
    static int32_t length[2000];
    struct packing p;
    for (int i = 0; i < 2000; i++)
        length[i] = i < 1000 ? 100 : 28;
    pack(&p, length, 2000, 128);
    assert_int_equal(p.packs, 1000);
    packing_fini(&p);
    pack(&p, length, 1000, 128);
    int32_t first = p.packs;
    packing_fini(&p);
    pack(&p, length + 1000, 1000, 128);
    assert_int_equal(first + p.packs, 1250);
    packing_fini(&p);
}

/* ---- many ---- */

static void a_million_documents(void **state)
{
    (void)state;
    enum { N = 1000000, MAX = 4096 };
    int32_t *length = malloc(N * sizeof *length);
    char *seen = calloc(N, 1);
    assert_non_null(length);
    assert_non_null(seen);
    int64_t tokens = 0;
    for (int i = 0; i < N; i++) { /* mostly short: 1 to 6000, by the cube */
        double u = rng_uniform(3, 0, (uint64_t)i);
        length[i] = 1 + (int32_t)(6000 * u * u * u);
        tokens += cut(length[i], MAX);
    }
    struct packing p;
    double begin = clock_s();
    pack(&p, length, N, MAX);
    double took = clock_s() - begin;
    for (int32_t i = 0; i < p.packs; i++) {
        int64_t used = 0;
        for (int32_t k = p.pack_begin[i]; k < p.pack_begin[i + 1]; k++) {
            assert_false(seen[p.document[k]]);
            seen[p.document[k]] = 1;
            used += cut(length[p.document[k]], MAX);
        }
        assert_in_range(used, 1, MAX);
    }
    int64_t fewest = (tokens + MAX - 1) / MAX;
    printf("%d documents in %.3f s: %d packs, at least %lld are needed\n", N, took,
           p.packs, (long long)fewest);
    assert_int_equal(p.documents, N);
    assert_int_equal(p.tokens, tokens);
    /* no two packs would fit into one */
    assert_true(p.packs >= fewest && p.packs <= 2 * fewest);
    packing_fini(&p);
    free(length);
    free(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_trl),
        cmocka_unit_test(equals_the_rule),
        cmocka_unit_test(holds_at_the_edges),
        cmocka_unit_test(the_whole_set_is_packed_at_once),
        cmocka_unit_test(a_million_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
