/* SPDX-License-Identifier: Apache-2.0 */
/* A sealed checkpoint whose attributes and arrays are not what dusk writes. An input is
 * a list of changes to those of a tiny one; the file is then written with a right seal,
 * so that only the readers of its content stand in the way. */
#include "tests/fuzz/ckpt_tiny.h"

#include <stdio.h>

enum { TEXT = 64, EDITS = 32, ARRAY_BYTES_MAX = 1 << 16 };

/* What is left of the input; reading past its end gives zeros. */
struct input {
    const uint8_t *data;
    size_t left;
};

/* Attributes and arrays under way, and the room for what is new. */
struct content {
    struct sealed_attr attr[256];
    struct sealed_array array[64];
    int attrs, arrays;
    char text[EDITS][2][TEXT];
    int64_t ints[EDITS][4];
};

static uint8_t take(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

static int64_t take_int(struct input *in)
{
    uint64_t x = 0;
    for (int i = 0; i < 8; i++)
        x |= (uint64_t)take(in) << (8 * i);
    return (int64_t)x;
}

/* Not empty, without NUL. */
static const char *take_text(struct input *in, char text[TEXT])
{
    size_t n = take(in) % TEXT;
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)take(in);
        if (!text[i])
            text[i] = '0';
    }
    text[n] = '\0';
    if (!n)
        strcpy(text, "x");
    return text;
}

static void change_attr(struct content *c, struct input *in, int op, int edit)
{
    int at = take(in) % c->attrs;
    struct sealed_attr *a = &c->attr[at];
    switch (op) {
    case 0:
        *a = c->attr[--c->attrs];
        return;
    case 1:
        a->kind = SEALED_INT;
        a->i = take_int(in);
        return;
    case 2:
        a->kind = SEALED_DOUBLE;
        a->i = take_int(in);
        memcpy(&a->d, &a->i, sizeof a->d);
        return;
    case 3:
        a->kind = SEALED_STRING;
        a->s = take_text(in, c->text[edit][0]);
        return;
    default:
        a->kind = SEALED_INTS;
        a->ints = c->ints[edit];
        a->n = 1 + take(in) % 4;
        for (int i = 0; i < a->n; i++)
            c->ints[edit][i] = take(in);
    }
}

static void add_attr(struct content *c, struct input *in, int edit)
{
    struct sealed_attr *a = &c->attr[c->attrs];
    *a = (struct sealed_attr){.group = c->attr[take(in) % c->attrs].group,
                              .kind = SEALED_STRING};
    a->name = take_text(in, c->text[edit][0]);
    a->s = take_text(in, c->text[edit][1]);
    c->attrs++;
}

static void change_array(struct content *c, struct input *in)
{
    struct sealed_array *a = &c->array[take(in) % c->arrays];
    uint8_t what = take(in), value = take(in);
    if (what % 5 == 0)
        a->type = (enum sealed_type)(value % (SEALED_F64 + 1));
    else if (what % 5 == 1)
        a->stacked = value & 1;
    else if (what % 5 == 2)
        a->dims = 1 + value % SEALED_MAX_DIMS;
    else
        a->dim[value % SEALED_MAX_DIMS] = take(in);
    for (int d = 0; d < a->dims; d++)
        if (a->dim[d] < 1)
            a->dim[d] = 1;
}

static void add_array(struct content *c, struct input *in)
{
    char name[TEXT];
    struct sealed_array *a = &c->array[c->arrays++];
    *a = (struct sealed_array){.type = (enum sealed_type)(take(in) % (SEALED_F64 + 1))};
    snprintf(a->path, sizeof a->path, "/tokenizer/%s", take_text(in, name));
    uint8_t dims = take(in);
    a->dims = 1 + dims % SEALED_MAX_DIMS;
    a->stacked = dims & 16;
    for (int d = 0; d < a->dims; d++)
        a->dim[d] = 1 + take(in) % 16;
}

static void change(struct content *c, struct input *in)
{
    for (int edit = 0; in->left && edit < EDITS; edit++) {
        int op = take(in) % 8;
        if (op < 5)
            change_attr(c, in, op, edit);
        else if (op == 5)
            add_attr(c, in, edit);
        else if (op == 6)
            change_array(c, in);
        else
            add_array(c, in);
        if (!c->attrs)
            return;
    }
}

static int64_t array_bytes(const struct sealed_array *a, int64_t *layers)
{
    int64_t bytes = (int64_t)sealed_type_bytes(a->type);
    for (int d = 0; d < a->dims; d++)
        bytes *= a->dim[d];
    *layers = a->stacked ? a->dim[0] : 1;
    return bytes;
}

/* Writes it all with zeros as data. -1: HDF5 cannot hold such names. */
static int write_file(const struct content *c, const char *path)
{
    struct err err = {0};
    int64_t layers;
    for (int i = 0; i < c->arrays; i++)
        if (array_bytes(&c->array[i], &layers) > ARRAY_BYTES_MAX)
            return -1;
    struct sealed_writer *w = sealed_create(comm_self(), path, true, c->array,
                                            c->arrays, c->attr, c->attrs, &err);
    if (!w)
        return -1;
    for (int i = 0; i < c->arrays; i++) {
        int64_t bytes = array_bytes(&c->array[i], &layers);
        for (int64_t l = 0; l < layers; l++)
            if (sealed_write(w, i, l, 0, NULL, (size_t)(bytes / layers), &err))
                fuzz_fail("%s", err.text);
    }
    if (sealed_commit(w, &err))
        fuzz_fail("%s", err.text);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct content c;
    struct input in = {data, size};
    struct err err = {0};
    struct ckpt_info info = ckpt_tiny_info();
    struct ckpt_attrs attrs;
    struct ckpt_plan plan;
    if (ckpt_attrs_init(&attrs, &info, 0, &err) || ckpt_plan_init(&plan, &info, &err))
        fuzz_fail("%s", err.text);
    c.attrs = attrs.n;
    c.arrays = plan.arrays;
    memcpy(c.attr, attrs.attr, (size_t)attrs.n * sizeof *c.attr);
    memcpy(c.array, plan.array, (size_t)plan.arrays * sizeof *c.array);
    change(&c, &in);
    const char *path = fuzz_path("checkpoint.h5");
    if (write_file(&c, path) == 0)
        ckpt_tiny_use(path);
    ckpt_plan_fini(&plan);
    ckpt_attrs_fini(&attrs);
    return 0;
}
