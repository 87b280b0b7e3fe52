/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/ckpt.h"
#include "io/record_set.h"
#include "io/reference.h"
#include "io/safetensors.h"
#include "io/sealed.h"
#include "io/token_set.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/cli/inspect_looks.h"
#include "src/cli/listing.h"
#include "src/cli/options.h"

static const struct option inspect_options[] = {
    {"--json", NULL, "print one JSON object instead of a table"},
    {"--verify", NULL,
     "read everything and compare it with the checksums; a link's source too"},
    {"--map", NULL,
     "draw which source layer each layer of an up-scaled checkpoint came from"},
    {"--stats", NULL,
     "mean, rms, largest value, NaN and Inf of each tensor; runs on ranks"},
    {0}};

static int run(int argc, char **argv, struct comm *world, const struct log *log);

const struct verb verb_inspect = {
    .name = "inspect",
    .arguments = "FILE [--map | --stats | --verify]",
    .summary =
        "show what is in a checkpoint, token or record set, reference or safetensors "
        "file",
    .description =
        "Prints arrays with dtype, shape and size, the attributes, and of a checkpoint "
        "the model, the layers and the source that it was made from and its training "
        "state; of reference log-probabilities what they were made of. FILE may be a "
        "training checkpoint's folder.\n"
        "The structure of a file (names, attributes, checksums) is always verified; "
        "--verify also reads the arrays. What is damaged is named by array, layer and "
        "bytes, with exit code 3.\n"
        "--map has a row for each run of layers that follow each other in the source, "
        "and a column for each of the source's layers. A bar is a joint. Layers that "
        "are no copies have their own marks, which the drawing explains: averaged, "
        "zeroed in part, noisy.\n"
        "--stats reads the model once (not an optimizer's state) and checks its "
        "checksums. Mean, rms and largest |x| are those of the finite values. Under "
        "srun or mpirun the ranks share the tensors; the figures are the same bits "
        "from any number of them.",
    .examples = "dusk inspect base.h5\n"
                "dusk inspect runs/solar/checkpoints/latest --verify\n"
                "dusk inspect solar-base.h5 --map\n"
                "srun dusk inspect solar-base.h5 --stats\n"
                "dusk inspect model-00001-of-00004.safetensors --json",
    .options = inspect_options,
    .mpi_option = "--stats",
    .run = run};

/* What was opened; the listing borrows from it. */
struct subject {
    const char *path, *kind;
    struct sealed *file;
    struct ckpt *ckpt;
    struct token_set *set;
    struct record_set *records;
    struct reference_key reference; /* pairs 0: it is none; texts borrowed from file */
    struct safetensors tensors;
    char seal[20];
    struct listing listing;
};

/* What --verify found. */
enum { DAMAGE_LISTED = 1000 };
struct damage {
    struct progress progress;
    int64_t blocks;
    char *text[DAMAGE_LISTED]; /* of the first ones; owned */
};

static void subject_fini(struct subject *s)
{
    listing_fini(&s->listing);
    safetensors_fini(&s->tensors);
    token_set_close(s->set);
    record_set_close(s->records);
    ckpt_close(s->ckpt);
    sealed_close(s->file);
}

/* Does the file start as a sealed one? A folder counts as a checkpoint. */
static bool looks_sealed(const char *path)
{
    char magic[8] = "";
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, magic, sizeof magic);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)sizeof magic && memcmp(magic, "DUSKSEAL", sizeof magic) == 0;
}

static void list_attributes(struct subject *s)
{
    for (int i = 0; i < sealed_attrs(s->file); i++) {
        const struct sealed_attr *a = sealed_attr_at(s->file, i);
        if (a->kind == SEALED_INT)
            listing_add_int(&s->listing, a->group, a->name, a->i);
        else if (a->kind == SEALED_DOUBLE)
            listing_add_double(&s->listing, a->group, a->name, a->d);
        else if (a->kind == SEALED_STRING)
            listing_add_string(&s->listing, a->group, a->name, a->s);
    }
}

static void list_arrays(struct subject *s)
{
    for (int i = 0; i < sealed_arrays(s->file); i++) {
        const struct sealed_array *a = sealed_array_at(s->file, i);
        struct listing_array row = {.name = a->path,
                                    .dtype = sealed_type_name(a->type),
                                    .dims = a->dims,
                                    .elements = 1};
        for (int d = 0; d < a->dims; d++) {
            row.dim[d] = a->dim[d];
            row.elements *= a->dim[d];
        }
        row.bytes = row.elements * (int64_t)sealed_type_bytes(a->type);
        listing_add_array(&s->listing, &row);
    }
}

static void describe_checkpoint(struct subject *s)
{
    const struct ckpt_info *info = ckpt_info(s->ckpt);
    struct listing *l = &s->listing;
    listing_add_string(l, NULL, "architecture", arch_name(info->shape.arch));
    listing_add_int(l, NULL, "parameters", table_elements(&info->shape));
    listing_add_string(l, NULL, "source", info->source);
    listing_add_string(l, NULL, "layers", info->layers);
    listing_add_string(l, NULL, "linked_to", ckpt_link_path(s->ckpt));
    if (info->optimizer || info->step) {
        listing_add_int(l, NULL, "step", info->step);
        listing_add_int(l, NULL, "samples", info->samples);
        listing_add_int(l, NULL, "tokens", info->tokens);
        listing_add_int(l, NULL, "adam_t", info->adam_t);
        listing_add_int(l, NULL, "skipped", info->skipped);
    }
}

static void describe_tokens(struct subject *s)
{
    const struct token_set_info *info = token_set_info(s->set);
    listing_add_int(&s->listing, NULL, "documents", info->documents);
    listing_add_int(&s->listing, NULL, "tokens", info->tokens);
}

static void describe_records(struct subject *s)
{
    const struct record_set_info *info = record_set_info(s->records);
    struct listing *l = &s->listing;
    listing_add_string(l, NULL, "holds", record_set_kind_name(info->kind));
    listing_add_int(l, NULL, "records", info->records);
    listing_add_int(l, NULL, "tokens", info->tokens);
    listing_add_int(l, NULL, "counted_tokens", info->counted_tokens);
    if (info->packs) {
        listing_add_int(l, NULL, "packs", info->packs);
        listing_add_int(l, NULL, "pack_length", info->pack_length);
    }
    listing_add_string(l, NULL, "template", info->template_name);
}

static void describe_reference(struct subject *s)
{
    const struct reference_key *k = &s->reference;
    struct listing *l = &s->listing;
    listing_add_int(l, NULL, "pairs", k->pairs);
    listing_add_string(l, NULL, "weights", k->weights);
    listing_add_string(l, NULL, "data", k->data);
    listing_add_string(l, NULL, "template_hash", k->template_hash);
    listing_add_string(l, NULL, "precision", k->precision);
}

/* Opens a sealed file as what its format says, so that its rules are checked too. */
static int open_sealed(struct subject *s, struct err *err)
{
    struct stat st;
    const char *file = s->path;
    if (stat(s->path, &st) == 0 && S_ISDIR(st.st_mode)) {
        s->ckpt = ckpt_open(comm_self(), s->path, err);
        if (!s->ckpt)
            return -1;
        file = ckpt_path(s->ckpt);
    }
    s->file = sealed_open(comm_self(), file, err);
    if (!s->file)
        return -1;
    const struct sealed_attr *format = sealed_attr_find(s->file, "/", "format");
    s->kind = format && format->kind == SEALED_STRING ? format->s : "sealed file";
    if (strcmp(s->kind, "dusk checkpoint") == 0 && !s->ckpt)
        s->ckpt = ckpt_open(comm_self(), s->path, err);
    else if (strcmp(s->kind, "dusk token set") == 0)
        s->set = token_set_open(comm_self(), s->path, err);
    else if (strcmp(s->kind, "dusk record set") == 0)
        s->records = record_set_open(comm_self(), s->path, err);
    else if (strcmp(s->kind, "dusk reference") == 0)
        return reference_key_of(s->file, &s->reference, err);
    else if (!s->ckpt)
        return 0;
    return s->ckpt || s->set || s->records ? 0 : -1;
}

static int inspect_sealed(struct subject *s, struct err *err)
{
    if (open_sealed(s, err) < 0)
        return -1;
    struct listing *l = &s->listing;
    snprintf(s->seal, sizeof s->seal, "%016llx",
             (unsigned long long)sealed_identity(s->file));
    listing_add_string(l, NULL, "kind", s->kind);
    listing_add_int(l, NULL, "file_bytes", sealed_file_bytes(s->file));
    listing_add_string(l, NULL, "seal", s->seal);
    if (s->ckpt)
        describe_checkpoint(s);
    if (s->set)
        describe_tokens(s);
    if (s->records)
        describe_records(s);
    if (s->reference.pairs)
        describe_reference(s);
    list_attributes(s);
    list_arrays(s);
    return 0;
}

static int inspect_safetensors(struct subject *s, struct err *err)
{
    if (safetensors_read(&s->tensors, s->path, err) < 0)
        return -1;
    struct listing *l = &s->listing;
    s->kind = "safetensors";
    listing_add_string(l, NULL, "kind", s->kind);
    listing_add_int(l, NULL, "file_bytes", s->tensors.file_bytes);
    listing_add_string(l, NULL, "metadata", s->tensors.metadata);
    for (int i = 0; i < s->tensors.n; i++) {
        const struct safetensor *t = &s->tensors.tensor[i];
        struct listing_array row = {.name = t->name,
                                    .dtype = t->dtype,
                                    .dims = t->ndim,
                                    .elements = t->elements,
                                    .bytes = t->bytes};
        for (int d = 0; d < t->ndim && d < LISTING_DIMS; d++)
            row.dim[d] = t->shape[d];
        listing_add_array(l, &row);
    }
    return 0;
}

static void found_bad(void *context, const struct err *what)
{
    struct damage *d = context;
    struct err ignored;
    if (d->blocks < DAMAGE_LISTED)
        d->text[d->blocks] = mem_printf(&ignored, "%s", what->text);
    d->blocks++;
}

static void read_so_far(void *context, int64_t bytes)
{
    struct damage *d = context;
    progress_at(&d->progress, (double)bytes);
}

static int verify_file(struct sealed *file, const struct log *log, struct damage *d,
                       struct err *err)
{
    progress_begin(&d->progress, log, "verify", "GB", (double)sealed_data_bytes(file),
                   1e9);
    int64_t n = sealed_verify(file, found_bad, read_so_far, d, err);
    progress_end(&d->progress);
    return n < 0 ? -1 : 0;
}

/* The file's own arrays, then those of a link's source. safetensors has no checksums:
 * its header was checked when it was read. */
static int verify(struct subject *s, const struct log *log, struct damage *d,
                  struct err *err)
{
    const char *source = s->ckpt ? ckpt_link_path(s->ckpt) : NULL;
    if (!s->file)
        return 0;
    if (verify_file(s->file, log, d, err) < 0)
        return -1;
    if (!source)
        return 0;
    struct sealed *base = sealed_open(comm_self(), source, err);
    if (!base)
        return -1;
    int rc = verify_file(base, log, d, err);
    sealed_close(base);
    return rc;
}

static void print_json(const struct subject *s, bool verified, const struct damage *d)
{
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_text(&j, "file", s->path);
    listing_json(&s->listing, &j);
    json_bool(&j, "verified", verified && s->file);
    json_int(&j, "damaged_blocks", d->blocks);
    json_begin(&j, "damage", '[');
    for (int i = 0; i < DAMAGE_LISTED && d->text[i]; i++)
        json_text(&j, NULL, d->text[i]);
    json_end(&j, ']');
    json_end(&j, '}');
    printf("%s\n", j.text);
    json_fini(&j);
}

static void print_table(const struct subject *s, bool verified, const struct damage *d)
{
    printf("%s\n", s->path);
    listing_print(&s->listing);
    for (int i = 0; i < DAMAGE_LISTED && d->text[i]; i++)
        printf("%s\n", d->text[i]);
    if (verified && s->file && !d->blocks)
        printf("verified: every block matches its checksum\n");
    else if (verified && !s->file)
        printf("safetensors carry no checksums: only the header was verified\n");
}

static int inspect(const struct options *o, const struct log *log, struct err *err)
{
    bool checked = options_flag(o, "--verify"), json = options_flag(o, "--json");
    struct subject s = {.path = o->arg[0]};
    struct damage d = {0};
    int rc =
        looks_sealed(s.path) ? inspect_sealed(&s, err) : inspect_safetensors(&s, err);
    if (rc == 0 && checked)
        rc = verify(&s, log, &d, err);
    if (rc == 0 && json)
        print_json(&s, checked, &d);
    else if (rc == 0)
        print_table(&s, checked, &d);
    if (rc == 0 && d.blocks)
        rc = err_set(err, ERR_INPUT, "%s: %lld damaged block%s of 64 KiB", s.path,
                     (long long)d.blocks, d.blocks == 1 ? "" : "s");
    for (int i = 0; i < DAMAGE_LISTED; i++)
        free(d.text[i]);
    subject_fini(&s);
    return rc;
}

/* One look: they answer different questions, and each reads the file its own way. */
static int look(const struct options *o, struct comm *world, const struct log *log,
                struct err *err)
{
    bool json = options_flag(o, "--json"), map = options_flag(o, "--map"),
         stats = options_flag(o, "--stats");
    if (map + stats + options_flag(o, "--verify") > 1)
        return err_set(err, ERR_USAGE,
                       "--map, --stats and --verify are separate looks: expected one "
                       "at a time");
    if (map)
        return inspect_map(o->arg[0], json, err);
    if (stats)
        return inspect_stats(o->arg[0], json, world, log, err);
    return inspect(o, log, err);
}

static int run(int argc, char **argv, struct comm *world, const struct log *log)
{
    struct options o = {0};
    struct err err;
    int rc = options_read(&o, &verb_inspect, argc, argv, 1, 1, &err);
    if (rc == 0)
        rc = look(&o, world, log, &err);
    options_fini(&o);
    return rc ? verb_fail(&verb_inspect, world, &err) : 0;
}
