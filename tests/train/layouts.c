/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint does not know the layout that wrote it: eight layouts each write one,
 * and each loads in each other with the same weights and moments, bit for bit, and goes
 * on as the run that was not interrupted where the data degree is the same. Also:
 * moments through a layer map. Eight ranks; smaller layouts run on the first of them.
 */
#include "src/train/trainer.h"

#include "io/ckpt_diff.h"
#include "io/token_set.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/train/run_spec.h"
#include "src/train/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct layout {
    int pipeline, data;
    const char *split; /* NULL: auto */
} layouts[] = {{1, 1, NULL}, {2, 1, NULL}, {4, 1, NULL},      {1, 2, NULL},
               {2, 2, NULL}, {4, 2, NULL}, {3, 1, "[1,3,2]"}, {1, 4, NULL}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts, TOKENS = 4000, VOCAB = 600 };

static const char run_text[] =
    "run: {name: w, dir: runs, seed: 5}\n"
    "model: {init: random, shape: {num_hidden_layers: 6, hidden_size: 64,\n"
    "  intermediate_size: 96, num_attention_heads: 4, num_key_value_heads: 2,\n"
    "  vocab_size: 600, max_position_embeddings: 64}}\n"
    "data: {train: [{path: set.h5}], seq_len: 16}\n"
    "train: {steps: 3, global_batch: 8}\n"
    "optim: {lr: 1.0e-3, schedule: constant}\n"
    "checkpoint: {every: 2}\n"
    "log: {timeout: 0, io_timeout: 0, accounting: false}\n";

static struct comm *world, *part[LAYOUTS]; /* the first ranks, for each layout */
static int failed, same, compared;

static int ranks_of(int i)
{
    return layouts[i].pipeline * layouts[i].data;
}

static bool takes_part(int i)
{
    return comm_rank(world) < ranks_of(i);
}

static void need(int rc, const struct err *err, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "FAIL: %s: %s\n", what, err->text);
    failed = 1;
}

static void write_set(void)
{
    struct err err;
    struct token_set_info info = {.tokens = TOKENS,
                                  .documents = 1,
                                  .source_bytes = TOKENS,
                                  .vocab = VOCAB,
                                  .source = (char[]){"none"},
                                  .document = (char[]){"file"}};
    static uint16_t id[TOKENS];
    int64_t end = TOKENS;
    for (int i = 0; i < TOKENS; i++)
        id[i] = (uint16_t)(i * 7919 % 397 + i % 3);
    struct sealed_writer *w =
        token_set_create(comm_self(), "set.h5", true, &info, &err);
    int rc = !w || sealed_write(w, TOKEN_SET_TOKENS, 0, 0, id, sizeof id, &err) ||
             sealed_write(w, TOKEN_SET_DOCUMENT_ENDS, 0, 0, &end, sizeof end, &err) ||
             sealed_commit(w, &err) ||
             file_write_atomic("run.yaml", run_text, sizeof run_text - 1, &err);
    need(rc, &err, "the inputs");
}

enum { SETS = 6, SET_BYTES = 128 };

/* The --set overrides of a run on layout i; how many. */
static int settings(int i, const char *name, const char *resume,
                    char text[SETS][SET_BYTES], const char *sets[SETS])
{
    const struct layout *l = &layouts[i];
    int n = 0;
    snprintf(text[n++], SET_BYTES, "run.name=%s", name);
    snprintf(text[n++], SET_BYTES, "parallel.pipeline=%d", l->pipeline);
    snprintf(text[n++], SET_BYTES, "parallel.data=%d", l->data);
    snprintf(text[n++], SET_BYTES, "parallel.split=%s", l->split ? l->split : "auto");
    if (resume)
        snprintf(text[n++], SET_BYTES, "checkpoint.resume=%s", resume);
    for (int k = 0; k < n; k++)
        sets[k] = text[k];
    return n;
}

static void train_on(int i, const char *name, const char *resume)
{
    char text[SETS][SET_BYTES];
    const char *sets[SETS];
    struct log silent = {0};
    struct err err;
    if (takes_part(i))
        need(train(part[i], &silent, "run.yaml", sets,
                   settings(i, name, resume, text, sets), &err),
             &err, name);
    comm_barrier(world);
}

/* Counts a comparison; false and a line if the files differ. Rank 0 alone. */
static void compare(const char *what, const char *path_a, const char *path_b)
{
    struct err err;
    struct ckpt_diff d = {0};
    struct ckpt *a = ckpt_open(comm_self(), path_a, &err);
    struct ckpt *b = a ? ckpt_open(comm_self(), path_b, &err) : NULL;
    need(!b || ckpt_diff(a, b, NULL, NULL, &d, &err), &err, what);
    bool equal = b && d.optimizer && d.compared == 171 && d.rows == 0 && !d.shape &&
                 ckpt_info(a)->step == ckpt_info(b)->step &&
                 ckpt_info(a)->adam_t == ckpt_info(b)->adam_t &&
                 ckpt_info(a)->samples == ckpt_info(b)->samples &&
                 ckpt_info(a)->tokens == ckpt_info(b)->tokens;
    compared++;
    same += equal;
    if (!equal) {
        printf("FAIL: %s: %s and %s: %d of %d tensors differ\n", what, path_a, path_b,
               d.rows, d.compared);
        failed = 1;
    }
    if (b)
        ckpt_diff_fini(&d);
    ckpt_close(a);
    ckpt_close(b);
}

/* "loss", "grad_norm" of a run's third step, as they stand in metrics.jsonl. */
static void third_step(const char *name, char bits[128])
{
    char path[128];
    size_t bytes;
    struct err err;
    snprintf(path, sizeof path, "runs/%s/metrics.jsonl", name);
    char *text = file_read(path, 1 << 20, &bytes, &err);
    const char *line = text ? strstr(text, "{\"step\": 3, ") : NULL;
    const char *end = line ? strstr(line, ", \"tokens\"") : NULL;
    snprintf(bits, 128, "%.*s", end ? (int)(end - line) : 0, end ? line : "");
    free(text);
}

static const char *file_of(const char *name, int step)
{
    static char path[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "runs/%s/checkpoints/step-%08d", name,
             step);
    return path[turn];
}

/* Layout j goes on from the second step of layout i. */
static void go_on(int i, int j)
{
    char name[32], writer[32], reference[32], bits[2][128];
    snprintf(name, sizeof name, "w%d-%d", i, j);
    snprintf(writer, sizeof writer, "w%d", i);
    train_on(j, name, file_of(writer, 2));
    if (!comm_root(world))
        return;
    /* What was not interrupted; or the first that changed the degree likewise. */
    int a = 0, b = 0;
    while (layouts[a].data != layouts[i].data)
        a++;
    while (layouts[b].data != layouts[j].data)
        b++;
    if (layouts[i].data == layouts[j].data)
        snprintf(reference, sizeof reference, "w%d", i);
    else
        snprintf(reference, sizeof reference, "w%d-%d", a, b);
    compare("the step after it", file_of(reference, 3), file_of(name, 3));
    third_step(name, bits[0]);
    third_step(reference, bits[1]);
    if (!*bits[0] || strcmp(bits[0], bits[1]) != 0) {
        printf("FAIL: layout %d after %d: %s, expected %s\n", j, i, bits[0], bits[1]);
        failed = 1;
    }
}

/* Loads a checkpoint into an engine of layout j, through a map, and saves that. */
static void pass_through(int j, const char *from, const struct layer_map *map,
                         const char *to)
{
    char text[SETS][SET_BYTES];
    const char *sets[SETS];
    struct run run;
    struct engine_spec spec;
    struct engine *e = NULL;
    struct err err;
    struct ckpt_info info = {0};
    struct comm *c = part[j];
    struct gemm *gemm = engine_gemm(c, GEMM_LEVEL_ANY, &err);
    struct ckpt *k = ckpt_open(c, from, &err);
    int n = settings(j, "none", NULL, text, sets);
    int rc = !gemm || !k || ckpt_info_copy(&info, ckpt_info(k), &err) ||
             run_read(&run, "run.yaml", sets, n, &err);
    need(rc, &err, from);
    if (rc)
        return;
    info.shape.layers = map->layers;
    run.model.shape.layers = map->layers;
    rc = run_engine_spec(&run, &info.shape, comm_size(c), NULL, &spec, &err) ||
         !(e = engine_create(c, &spec, gemm, &err)) ||
         weights_load(e, k, from, map, true, &err);
    struct ckpt_writer *w = rc ? NULL : ckpt_create(c, to, true, true, &info, &err);
    rc = !w || weights_save(e, w, &err);
    rc = rc || ckpt_commit(w, &err);
    need(rc, &err, to);
    ckpt_info_fini(&info);
    ckpt_close(k);
    engine_destroy(e);
    gemm_destroy(gemm);
    run_fini(&run);
}

/* Every tensor and both moments of `grown` are those of the map's source layers. */
static void check_grown(const char *path, const char *source,
                        const struct layer_map *map)
{
    struct err err;
    struct ckpt *a = ckpt_open(comm_self(), source, &err);
    struct ckpt *b = a ? ckpt_open(comm_self(), path, &err) : NULL;
    need(!b, &err, path);
    int64_t equal = 0, all = 0, nonzero = 0;
    for (int i = 0; b && i < table_count(&ckpt_info(b)->shape); i++) {
        struct tensor t = table_at(&ckpt_info(b)->shape, i);
        int64_t n = t.rows * t.cols;
        float *x = mem_array(2 * n, sizeof *x, &err);
        for (int set = 0; x && set < CKPT_SETS; set++) {
            int from = t.layer < 0 ? -1 : map->source[t.layer];
            enum ckpt_set s = (enum ckpt_set)set;
            need(ckpt_read(a, s, t.role, from, 0, n, x, &err), &err, source);
            need(ckpt_read(b, s, t.role, t.layer, 0, n, x + n, &err), &err, path);
            equal += memcmp(x, x + n, (size_t)n * sizeof *x) == 0;
            nonzero += x[n / 2] != 0 || x[n - 1] != 0;
            all++;
        }
        mem_free(x);
    }
    printf(
        "layers 0:4,2:6 with their moments: %lld of %lld arrays equal, %lld not zero\n",
        (long long)equal, (long long)all, (long long)nonzero);
    if (!all || equal != all || nonzero < all * 9 / 10)
        failed = 1;
    ckpt_close(a);
    ckpt_close(b);
}

static void all_pairs(void)
{
    struct err err;
    struct layer_map same_layers, grown;
    need(layer_map_identity(&same_layers, 6, &err) ||
             layer_map_parse(&grown, "0:4,2:6", 6, &err),
         &err, "maps");
    double start_s = clock_s();
    for (int i = 0; i < LAYOUTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "w%d", i);
        train_on(i, name, NULL);
    }
    double wrote_s = clock_s();
    for (int i = 0; i < LAYOUTS; i++)
        for (int j = 0; j < LAYOUTS; j++) {
            char writer[32];
            snprintf(writer, sizeof writer, "w%d", i);
            if (takes_part(j))
                pass_through(j, file_of(writer, 2), &same_layers, "passed");
            comm_barrier(world);
            if (comm_root(world))
                compare("loaded and saved", file_of(writer, 2), "passed");
            comm_barrier(world);
        }
    double passed_s = clock_s();
    for (int i = 0; i < LAYOUTS; i++)
        for (int j = 0; j < LAYOUTS; j++)
            go_on(i, j);
    if (takes_part(4))
        pass_through(4, "runs/w2/checkpoints/step-00000003", &grown, "grown");
    comm_barrier(world);
    if (comm_root(world)) {
        printf("%d of %d comparisons equal; 8 layouts wrote in %.1f s, 64 pairs loaded "
               "and saved in %.1f s, went on in %.1f s\n",
               same, compared, wrote_s - start_s, passed_s - wrote_s,
               clock_s() - passed_s);
        check_grown("grown", "runs/w2/checkpoints/step-00000003", &grown);
    }
    layer_map_fini(&same_layers);
    layer_map_fini(&grown);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    char folder[256];
    world = comm_start(&argc, &argv, &err);
    if (!world || comm_size(world) != 8) {
        fprintf(stderr, "FAIL: expected 8 ranks: %s\n", err.text);
        return 1;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-layouts-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    if (chdir(folder))
        return 99;
    for (int i = 0; i < LAYOUTS; i++)
        part[i] = comm_split(world, takes_part(i), comm_rank(world));
    if (comm_root(world))
        write_set();
    comm_barrier(world);
    all_pairs();
    for (int i = 0; i < LAYOUTS; i++)
        comm_free(part[i]);
    int64_t code = failed;
    comm_max_i64(world, &code, 1);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
    return (int)code;
}
