/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ckpt_parts.h"

#include "src/base/mem.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "dusk checkpoint";

/* The whole numbers of /model: Hugging Face's names, places in struct model_shape. */
static const struct {
    const char *name;
    size_t at;
} shape_ints[] = {
    {"num_hidden_layers", offsetof(struct model_shape, layers)},
    {"hidden_size", offsetof(struct model_shape, hidden)},
    {"intermediate_size", offsetof(struct model_shape, ff)},
    {"num_attention_heads", offsetof(struct model_shape, heads)},
    {"num_key_value_heads", offsetof(struct model_shape, kv_heads)},
    {"head_dim", offsetof(struct model_shape, head_dim)},
    {"vocab_size", offsetof(struct model_shape, vocab)},
    {"max_position_embeddings", offsetof(struct model_shape, max_positions)},
    {"sliding_window", offsetof(struct model_shape, window)},
    {"bos_token_id", offsetof(struct model_shape, bos_id)},
    {"eos_token_id", offsetof(struct model_shape, eos_id)}};
enum { SHAPE_INTS = sizeof shape_ints / sizeof *shape_ints };

static const struct {
    const char *name;
    size_t at;
    bool optional; /* files from before it was there have none: 0 */
} state_ints[] = {
    {"step", offsetof(struct ckpt_info, step), false},
    {"samples", offsetof(struct ckpt_info, samples), false},
    {"tokens", offsetof(struct ckpt_info, tokens), false},
    {"adam_t", offsetof(struct ckpt_info, adam_t), false},
    {"skipped", offsetof(struct ckpt_info, skipped), true},
    {"skipped_in_a_row", offsetof(struct ckpt_info, skipped_in_a_row), true}};
enum { STATE_INTS = sizeof state_ints / sizeof *state_ints };

/* The strings of /source: any of them may be absent. */
static const struct {
    const char *name;
    size_t at;
} source_texts[] = {{"source", offsetof(struct ckpt_info, source)},
                    {"layers", offsetof(struct ckpt_info, layers)},
                    {"seam", offsetof(struct ckpt_info, seam)},
                    {"zero", offsetof(struct ckpt_info, zero)},
                    {"init_noise", offsetof(struct ckpt_info, init_noise)},
                    {"init_noise_seed", offsetof(struct ckpt_info, init_noise_seed)}};
enum {
    SOURCE_TEXTS = sizeof source_texts / sizeof *source_texts,
    SOURCE_LAYERS_MAX = 1 << 16 /* as of any model: shape_check */
};

/* ---- to attributes ---- */

static void add(struct ckpt_attrs *a, struct sealed_attr attr)
{
    if (a->n < a->room)
        a->attr[a->n++] = attr;
}

static void add_int(struct ckpt_attrs *a, const char *group, const char *name,
                    int64_t i)
{
    add(a,
        (struct sealed_attr){.group = group, .name = name, .kind = SEALED_INT, .i = i});
}

static void add_text(struct ckpt_attrs *a, const char *group, const char *name,
                     const char *s)
{
    add(a, (struct sealed_attr){
               .group = group, .name = name, .kind = SEALED_STRING, .s = s});
}

static void add_double(struct ckpt_attrs *a, const char *group, const char *name,
                       double d)
{
    add(a, (struct sealed_attr){
               .group = group, .name = name, .kind = SEALED_DOUBLE, .d = d});
}

/* Keeps an owned string for as long as the attributes live. */
static char *keep(struct ckpt_attrs *a, char *text)
{
    if (text)
        a->text[a->texts++] = text;
    return text;
}

static void add_shape(struct ckpt_attrs *a, const struct model_shape *s)
{
    add_text(a, "/model", "architecture", arch_name(s->arch));
    for (int i = 0; i < SHAPE_INTS; i++) {
        int value;
        memcpy(&value, (const char *)s + shape_ints[i].at, sizeof value);
        add_int(a, "/model", shape_ints[i].name, value);
    }
    add_double(a, "/model", "rope_theta", s->rope_theta);
    add_double(a, "/model", "rms_norm_eps", s->norm_eps);
    add_int(a, "/model", "tie_word_embeddings", s->tied);
    add_int(a, "/model", "parameters", table_elements(s));
    add_text(
        a, "/model", "conventions",
        "Linear weights are [out, in], row-major; /model/layers arrays are stacked, "
        "[layer, ...]. Rotary pairs are (i, i + head_dim / 2). sliding_window 0: "
        "none; token id -1: none.");
}

static void add_state(struct ckpt_attrs *a, const struct ckpt_info *info)
{
    if (!info->optimizer && !info->step && !info->pairs)
        return;
    for (int i = 0; i < STATE_INTS; i++) {
        int64_t value;
        memcpy(&value, (const char *)info + state_ints[i].at, sizeof value);
        add_int(a, "/state", state_ints[i].name, value);
    }
    add_text(
        a, "/state", "units",
        "step: batches done; adam_t: updates done; skipped: updates dropped for NaN or "
        "Inf; samples: sequences; tokens: inputs");
    for (int i = 0; i < info->pairs; i++)
        add_text(a, "/state/run", info->pair[i].key, info->pair[i].value);
}

static void add_source(struct ckpt_attrs *a, const struct ckpt_info *info)
{
    for (int i = 0; i < SOURCE_TEXTS; i++) {
        char *text;
        memcpy(&text, (const char *)info + source_texts[i].at, sizeof text);
        if (text)
            add_text(a, "/source", source_texts[i].name, text);
    }
    if (info->source_layers)
        add_int(a, "/source", "source_layers", info->source_layers);
}

/* "BF16,BF16,F32" on the array of each stack that mixes dtypes. */
static int add_dtypes(struct ckpt_attrs *a, const struct ckpt_info *info,
                      struct err *err)
{
    for (int r = 0; r < ROLES; r++) {
        if (!info->layer_dtype[r])
            continue;
        size_t room = (size_t)info->shape.layers * 5 + 1, used = 0;
        char *list = keep(a, calloc(room, 1));
        char *path = keep(a, calloc(96, 1));
        if (!list || !path)
            return err_set(err, ERR_OTHER, "no memory for %d dtypes",
                           info->shape.layers);
        for (int l = 0; l < info->shape.layers; l++)
            used += (size_t)snprintf(list + used, room - used, "%s%s", l ? "," : "",
                                     dtype_name(info->layer_dtype[r][l]));
        ckpt_array_path(CKPT_MODEL, (enum tensor_role)r, path, 96);
        add_text(a, path, "source_dtypes", list);
    }
    return 0;
}

int ckpt_attrs_init(struct ckpt_attrs *a, const struct ckpt_info *info,
                    uint64_t link_identity, struct err *err)
{
    *a = (struct ckpt_attrs){.room = 64 + ROLES + info->pairs};
    a->attr = calloc((size_t)a->room, sizeof *a->attr);
    a->text = calloc((size_t)(2 * ROLES + 1), sizeof *a->text);
    if (!a->attr || !a->text) {
        ckpt_attrs_fini(a);
        return err_set(err, ERR_OTHER, "no memory for attributes");
    }
    add_text(a, "/", "format", format_name);
    add_int(a, "/", "version", CKPT_VERSION);
    add_text(a, "/", "creator", "dusk");
    add_shape(a, &info->shape);
    add_state(a, info);
    add_source(a, info);
    if (link_identity) {
        char *hex =
            keep(a, mem_printf(err, "%016llx", (unsigned long long)link_identity));
        if (!hex) {
            ckpt_attrs_fini(a);
            return -1;
        }
        add_text(a, "/source", "linked_seal", hex);
    }
    if (add_dtypes(a, info, err) < 0) {
        ckpt_attrs_fini(a);
        return -1;
    }
    return 0;
}

void ckpt_attrs_fini(struct ckpt_attrs *a)
{
    for (int i = 0; i < a->texts; i++)
        free(a->text[i]);
    free(a->text);
    free(a->attr);
    *a = (struct ckpt_attrs){0};
}

/* ---- from attributes ---- */

struct reader {
    const struct sealed *s;
    const char *path;
    struct err *err;
};

static const struct sealed_attr *find(struct reader *r, const char *group,
                                      const char *name, enum sealed_attr_kind kind)
{
    static const char *const kinds[] = {[SEALED_INT] = "a whole number",
                                        [SEALED_DOUBLE] = "a real number",
                                        [SEALED_STRING] = "a string",
                                        [SEALED_INTS] = "a list of whole numbers"};
    const struct sealed_attr *a = sealed_attr_find(r->s, group, name);
    if (a && a->kind == kind)
        return a;
    err_set(r->err, ERR_INPUT, "%s: attribute %s of %s: expected %s, found %s", r->path,
            name, group, kinds[kind], a ? kinds[a->kind] : "none");
    return NULL;
}

static int get_int(struct reader *r, const char *group, const char *name, int64_t min,
                   int64_t max, int64_t *value)
{
    const struct sealed_attr *a = find(r, group, name, SEALED_INT);
    if (!a)
        return -1;
    if (a->i < min || a->i > max)
        return err_set(r->err, ERR_INPUT,
                       "%s: attribute %s of %s: expected %lld to %lld, found %lld",
                       r->path, name, group, (long long)min, (long long)max,
                       (long long)a->i);
    *value = a->i;
    return 0;
}

static int get_double(struct reader *r, const char *group, const char *name,
                      double *value)
{
    const struct sealed_attr *a = find(r, group, name, SEALED_DOUBLE);
    if (!a)
        return -1;
    *value = a->d;
    return 0;
}

static int get_shape(struct reader *r, struct model_shape *s)
{
    int64_t value;
    const struct sealed_attr *a = find(r, "/model", "architecture", SEALED_STRING);
    if (!a)
        return -1;
    if (strcmp(a->s, arch_name(ARCH_LLAMA)) == 0)
        s->arch = ARCH_LLAMA;
    else if (strcmp(a->s, arch_name(ARCH_MISTRAL)) == 0)
        s->arch = ARCH_MISTRAL;
    else
        return err_set(r->err, ERR_INPUT,
                       "%s: architecture: expected %s or %s, found %s", r->path,
                       arch_name(ARCH_LLAMA), arch_name(ARCH_MISTRAL), a->s);
    for (int i = 0; i < SHAPE_INTS; i++) {
        if (get_int(r, "/model", shape_ints[i].name, -1, INT_MAX, &value) < 0)
            return -1;
        int narrow = (int)value;
        memcpy((char *)s + shape_ints[i].at, &narrow, sizeof narrow);
    }
    if (get_double(r, "/model", "rope_theta", &s->rope_theta) < 0 ||
        get_double(r, "/model", "rms_norm_eps", &s->norm_eps) < 0 ||
        get_int(r, "/model", "tie_word_embeddings", 0, 1, &value) < 0)
        return -1;
    s->tied = value == 1;
    if (shape_check(s, r->err) < 0)
        return err_prefix(r->err, "%s: /model", r->path);
    return 0;
}

static int get_state(struct reader *r, struct ckpt_info *info)
{
    if (!sealed_attr_find(r->s, "/state", "step"))
        return 0;
    for (int i = 0; i < STATE_INTS; i++) {
        int64_t value;
        if (state_ints[i].optional &&
            !sealed_attr_find(r->s, "/state", state_ints[i].name))
            continue;
        if (get_int(r, "/state", state_ints[i].name, 0, INT64_MAX, &value) < 0)
            return -1;
        memcpy((char *)info + state_ints[i].at, &value, sizeof value);
    }
    for (int i = 0; i < sealed_attrs(r->s); i++) {
        const struct sealed_attr *a = sealed_attr_at(r->s, i);
        if (strcmp(a->group, "/state/run") != 0)
            continue;
        if (!find(r, a->group, a->name, SEALED_STRING) ||
            ckpt_info_set(info, a->name, a->s, r->err) < 0)
            return -1;
    }
    return 0;
}

static int get_dtypes(struct reader *r, enum tensor_role role, struct ckpt_info *info)
{
    char path[96];
    ckpt_array_path(CKPT_MODEL, role, path, sizeof path);
    if (!role_per_layer(role) || !sealed_attr_find(r->s, path, "source_dtypes"))
        return 0;
    const struct sealed_attr *a = find(r, path, "source_dtypes", SEALED_STRING);
    if (!a)
        return -1;
    int layers = info->shape.layers, l = 0;
    enum dtype *list = calloc((size_t)layers, sizeof *list);
    info->layer_dtype[role] = list;
    if (!list)
        return err_set(r->err, ERR_OTHER, "no memory for %d dtypes", layers);
    const char *s = a->s;
    for (; l < layers; l++) {
        char name[8] = "";
        size_t n = strcspn(s, ",");
        if (n >= sizeof name)
            break;
        memcpy(name, s, n);
        if (dtype_parse(name, &list[l]) < 0)
            break;
        s += n + (s[n] == ',');
    }
    if (l < layers || *s)
        return err_set(
            r->err, ERR_INPUT,
            "%s: attribute source_dtypes of %s: expected %d of F32, BF16, F16", r->path,
            path, layers);
    return 0;
}

static int get_source(struct reader *r, struct ckpt_info *info)
{
    for (int i = 0; i < SOURCE_TEXTS; i++) {
        const char *name = source_texts[i].name;
        if (!sealed_attr_find(r->s, "/source", name))
            continue;
        const struct sealed_attr *a = find(r, "/source", name, SEALED_STRING);
        char *text = a ? mem_printf(r->err, "%s", a->s) : NULL;
        if (!text)
            return -1;
        memcpy((char *)info + source_texts[i].at, &text, sizeof text);
    }
    int64_t layers = 0;
    if (sealed_attr_find(r->s, "/source", "source_layers") &&
        get_int(r, "/source", "source_layers", 1, SOURCE_LAYERS_MAX, &layers) < 0)
        return -1;
    info->source_layers = (int)layers;
    return 0;
}

int ckpt_attrs_read(const struct sealed *s, const char *path, struct ckpt_info *info,
                    uint64_t *link_identity, struct err *err)
{
    struct reader r = {.s = s, .path = path, .err = err};
    int64_t version;
    *link_identity = 0;
    const struct sealed_attr *format = sealed_attr_find(s, "/", "format");
    if (!format || format->kind != SEALED_STRING || strcmp(format->s, format_name) != 0)
        return err_set(err, ERR_INPUT, "%s: expected a %s, found %s", path, format_name,
                       format && format->kind == SEALED_STRING ? format->s
                                                               : "another file");
    if (get_int(&r, "/", "version", 1, CKPT_VERSION, &version) < 0 ||
        get_shape(&r, &info->shape) < 0 || get_state(&r, info) < 0 ||
        get_source(&r, info) < 0)
        return -1;
    for (int role = 0; role < ROLES; role++)
        if (get_dtypes(&r, (enum tensor_role)role, info) < 0)
            return -1;
    if (!sealed_attr_find(s, "/source", "linked_seal"))
        return 0;
    const struct sealed_attr *seal = find(&r, "/source", "linked_seal", SEALED_STRING);
    if (!seal)
        return -1;
    *link_identity = strtoull(seal->s, NULL, 16);
    return 0;
}
