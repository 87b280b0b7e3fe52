/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/listing.h"

#include "src/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_CHARS = 100 };

const char *grouped(int64_t value, char *text, size_t size)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRId64, value);
    size_t used = 0;
    for (int i = 0; i < n && used + 2 < size; i++) {
        text[used++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - 1 - i) % 3 == 0)
            text[used++] = ',';
    }
    text[used] = '\0';
    return text;
}

static void *grown(void *list, int n, int *room, size_t size)
{
    if (n < *room)
        return list;
    *room = 2 * *room + 32;
    list = realloc(list, (size_t)*room * size);
    CHECK(list, "no memory for %d rows", *room);
    return list;
}

void listing_add_array(struct listing *l, const struct listing_array *a)
{
    l->array = grown(l->array, l->arrays, &l->arrays_room, sizeof *l->array);
    l->array[l->arrays++] = *a;
}

static void add_fact(struct listing *l, struct listing_fact f)
{
    l->fact = grown(l->fact, l->facts, &l->facts_room, sizeof *l->fact);
    l->fact[l->facts++] = f;
}

void listing_add_int(struct listing *l, const char *group, const char *name, int64_t i)
{
    add_fact(l, (struct listing_fact){
                    .group = group, .name = name, .kind = LISTING_INT, .i = i});
}

void listing_add_double(struct listing *l, const char *group, const char *name,
                        double d)
{
    add_fact(l, (struct listing_fact){
                    .group = group, .name = name, .kind = LISTING_DOUBLE, .d = d});
}

void listing_add_string(struct listing *l, const char *group, const char *name,
                        const char *s)
{
    add_fact(l, (struct listing_fact){
                    .group = group, .name = name, .kind = LISTING_STRING, .s = s});
}

void listing_fini(struct listing *l)
{
    free(l->array);
    free(l->fact);
    *l = (struct listing){0};
}

static void print_string(const char *s)
{
    int n = 0;
    for (; *s && n < SHOWN_CHARS; s++, n++)
        putchar((unsigned char)*s < 0x20 ? ' ' : *s);
    if (*s)
        printf("... (%zu bytes more)", strlen(s));
}

static void print_fact(const struct listing_fact *f)
{
    if (f->kind == LISTING_STRING && !f->s)
        return;
    printf("  %-24s ", f->name);
    if (f->kind == LISTING_INT)
        printf("%" PRId64, f->i);
    else if (f->kind == LISTING_DOUBLE)
        printf("%.12g", f->d);
    else
        print_string(f->s);
    putchar('\n');
}

static void shape_text(const struct listing_array *a, char *text, size_t size)
{
    size_t used = 0;
    used += (size_t)snprintf(text, size, "[");
    for (int d = 0; d < a->dims && used < size; d++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, d ? ", " : "",
                                 a->dim[d]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static void print_arrays(const struct listing *l)
{
    char shape[200], elements[32], bytes[32];
    size_t wide = 5;
    int64_t all_elements = 0, all_bytes = 0;
    for (int i = 0; i < l->arrays; i++)
        if (strlen(l->array[i].name) > wide)
            wide = strlen(l->array[i].name);
    printf("%-*s  %-5s %-20s %15s %16s\n", (int)wide, "array", "dtype", "shape",
           "elements", "bytes");
    for (int i = 0; i < l->arrays; i++) {
        const struct listing_array *a = &l->array[i];
        shape_text(a, shape, sizeof shape);
        printf("%-*s  %-5s %-20s %15s %16s\n", (int)wide, a->name, a->dtype, shape,
               grouped(a->elements, elements, sizeof elements),
               grouped(a->bytes, bytes, sizeof bytes));
        all_elements += a->elements;
        all_bytes += a->bytes;
    }
    printf("%-*s  %-5s %-20s %15s %16s\n", (int)wide, "in all", "", "",
           grouped(all_elements, elements, sizeof elements),
           grouped(all_bytes, bytes, sizeof bytes));
}

void listing_print(const struct listing *l)
{
    for (int i = 0; i < l->facts; i++)
        if (!l->fact[i].group)
            print_fact(&l->fact[i]);
    const char *group = NULL;
    for (int i = 0; i < l->facts; i++) {
        const struct listing_fact *f = &l->fact[i];
        if (!f->group)
            continue;
        if (!group || strcmp(group, f->group) != 0)
            printf("%s\n", f->group);
        group = f->group;
        print_fact(f);
    }
    print_arrays(l);
}

static void json_fact(const struct listing_fact *f, struct json *j)
{
    if (f->kind == LISTING_INT)
        json_int(j, f->name, f->i);
    else if (f->kind == LISTING_DOUBLE)
        json_double(j, f->name, f->d);
    else
        json_text(j, f->name, f->s);
}

static void json_attributes(const struct listing *l, struct json *j)
{
    const char *group = NULL;
    json_begin(j, "attributes", '{');
    for (int i = 0; i < l->facts; i++) {
        const struct listing_fact *f = &l->fact[i];
        if (!f->group)
            continue;
        if (!group || strcmp(group, f->group) != 0) {
            if (group)
                json_end(j, '}');
            json_begin(j, f->group, '{');
        }
        group = f->group;
        json_fact(f, j);
    }
    if (group)
        json_end(j, '}');
    json_end(j, '}');
}

void listing_json(const struct listing *l, struct json *j)
{
    for (int i = 0; i < l->facts; i++)
        if (!l->fact[i].group)
            json_fact(&l->fact[i], j);
    json_attributes(l, j);
    json_begin(j, "arrays", '[');
    for (int i = 0; i < l->arrays; i++) {
        const struct listing_array *a = &l->array[i];
        json_begin(j, NULL, '{');
        json_text(j, "name", a->name);
        json_text(j, "dtype", a->dtype);
        json_begin(j, "shape", '[');
        for (int d = 0; d < a->dims; d++)
            json_int(j, NULL, a->dim[d]);
        json_end(j, ']');
        json_int(j, "elements", a->elements);
        json_int(j, "bytes", a->bytes);
        json_end(j, '}');
    }
    json_end(j, ']');
}
