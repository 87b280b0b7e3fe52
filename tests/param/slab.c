/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/param/shapes.h"

/* Entries lie one after the other, aligned, in table order, inside the arrays. */
static void check_layout(const struct slab *slab)
{
    int64_t weight_end = 0, grad_end = 0;
    int last = -1;
    for (int i = 0; i < slab->entries; i++) {
        const struct slab_entry *e = &slab->entry[i];
        bool shared = e->weight_at < weight_end; /* the tied head with an embedding */
        assert_int_equal(e->weight_at % 16, 0);
        assert_int_equal(e->grad_at % 16, 0);
        assert_true(e->grad_at >= grad_end && e->grad_at < grad_end + 16);
        grad_end = e->grad_at + e->tensor.elements;
        if (shared) {
            assert_true(e->tied_head);
            assert_int_equal(e->weight_at,
                             slab_find(slab, ROLE_EMBED_TOKENS, -1, false)->weight_at);
        } else {
            assert_true(e->weight_at < weight_end + 16);
            weight_end = e->weight_at + e->tensor.elements;
        }
        if (!e->tied_head) {
            assert_true(e->tensor.index > last);
            last = e->tensor.index;
        }
        assert_ptr_equal(slab_find(slab, e->tensor.role, e->tensor.layer, e->tied_head),
                         e);
    }
    assert_true(slab->weights >= weight_end && slab->weights < weight_end + 16);
    assert_true(slab->grads >= grad_end && slab->grads < grad_end + 16);
}

static void check_split(const struct model_shape *s, const int *layers, int stages)
{
    int *seen = calloc((size_t)table_count(s), sizeof *seen), heads = 0, first = 0;
    for (int i = 0; i < stages; i++) {
        struct err err = {0};
        struct slab slab;
        assert_int_equal(
            slab_init(&slab, s, first, layers[i], i == 0, i == stages - 1, &err), 0);
        first += layers[i];
        check_layout(&slab);
        for (int k = 0; k < slab.entries; k++)
            if (slab.entry[k].tied_head) {
                heads++;
                assert_int_equal(i, stages - 1);
                assert_int_equal(slab.entry[k].tensor.role, ROLE_EMBED_TOKENS);
            } else {
                seen[slab.entry[k].tensor.index]++;
            }
        slab_fini(&slab);
    }
    for (int k = 0; k < table_count(s); k++)
        assert_int_equal(seen[k], 1);
    assert_int_equal(heads, s->tied);
    free(seen);
}

static void every_split_holds_each_tensor_once(void **state)
{
    (void)state;
    static const struct {
        int stages, layers[5];
    } rows[] = {
        {1, {5}},       {2, {3, 2}},       {2, {5, 0}},          {2, {0, 5}},
        {3, {1, 3, 1}}, {4, {1, 1, 1, 2}}, {5, {1, 1, 1, 1, 1}}, {5, {0, 2, 2, 1, 0}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int tied = 0; tied < 2; tied++) {
            struct model_shape s = shape_small_tied();
            s.layers = 5;
            s.tied = tied;
            print_message("%d stages, %s\n", rows[i].stages, tied ? "tied" : "untied");
            check_split(&s, rows[i].layers, rows[i].stages);
        }
}

static void a_tied_head_shares_weights_but_not_gradients(void **state)
{
    (void)state;
    struct err err = {0};
    struct model_shape s = shape_small_tied();
    struct slab alone, first, last;
    assert_int_equal(slab_init(&alone, &s, 0, 2, true, true, &err), 0);
    assert_int_equal(slab_init(&first, &s, 0, 1, true, false, &err), 0);
    assert_int_equal(slab_init(&last, &s, 1, 1, false, true, &err), 0);
    const struct slab_entry *embed = slab_find(&alone, ROLE_EMBED_TOKENS, -1, false);
    const struct slab_entry *head = slab_find(&alone, ROLE_EMBED_TOKENS, -1, true);
    int64_t padded = (331 * 72 + 15) / 16 * 16;
    assert_int_equal(head->weight_at, embed->weight_at);
    assert_int_not_equal(head->grad_at, embed->grad_at);
    assert_int_equal(alone.grads - alone.weights, padded);
    print_message("one stage: %lld weights, %lld gradients\n", (long long)alone.weights,
                  (long long)alone.grads);
    assert_null(slab_find(&first, ROLE_EMBED_TOKENS, -1, true));
    assert_null(slab_find(&first, ROLE_NORM, -1, false));
    assert_null(slab_find(&first, ROLE_Q_PROJ, 1, false));
    assert_int_equal(first.weights, first.grads);
    assert_null(slab_find(&last, ROLE_EMBED_TOKENS, -1, false));
    assert_non_null(slab_find(&last, ROLE_EMBED_TOKENS, -1, true));
    assert_null(slab_find(&last, ROLE_LM_HEAD, -1, false));
    assert_int_equal(last.weights, last.grads);
    slab_fini(&alone);
    slab_fini(&first);
    slab_fini(&last);
}

/* Frozen tensors keep their place among the weights and have none among the sums. */
static void frozen_tensors_have_no_gradients(void **state)
{
    (void)state;
    static char *patterns[] = {"layers.1", "*k_proj*", "model.embed_tokens.weight"};
    struct err err = {0};
    struct model_shape s = shape_small_tied();
    struct freeze f = {3, patterns};
    struct slab all, slab;
    assert_int_equal(slab_init(&all, &s, 0, 2, true, true, &err), 0);
    assert_int_equal(slab_init(&slab, &s, 0, 2, true, true, &err), 0);
    slab_freeze(&slab, &f);
    assert_int_equal(slab.weights, all.weights);
    int64_t end = 0;
    int frozen = 0;
    for (int i = 0; i < slab.entries; i++) {
        const struct slab_entry *e = &slab.entry[i];
        assert_int_equal(e->weight_at, all.entry[i].weight_at);
        assert_int_equal(e->frozen, freeze_holds(&f, &e->tensor));
        if (e->frozen) {
            frozen++;
            assert_int_equal(e->grad_at, -1);
            continue;
        }
        assert_true(e->grad_at % 16 == 0 && e->grad_at >= end && e->grad_at < end + 16);
        end = e->grad_at + e->tensor.elements;
    }
    print_message("%d of %d frozen, %lld of %lld gradients\n", frozen, slab.entries,
                  (long long)slab.grads, (long long)all.grads);
    assert_int_equal(frozen, 1 + 1 + 9 + 1); /* the head's use of the embedding too */
    assert_true(slab.grads >= end && slab.grads < end + 16);
    slab_freeze(&slab, &(struct freeze){0});
    for (int i = 0; i < slab.entries; i++)
        assert_true(!slab.entry[i].frozen &&
                    slab.entry[i].grad_at == all.entry[i].grad_at);
    assert_int_equal(slab.grads, all.grads);
    slab_fini(&slab);
    slab_fini(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_holds_each_tensor_once),
        cmocka_unit_test(a_tied_head_shares_weights_but_not_gradients),
        cmocka_unit_test(frozen_tensors_have_no_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
