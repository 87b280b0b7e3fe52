/* SPDX-License-Identifier: Apache-2.0 */
/* make_hf FOLDER KEY=NUMBER...: a Mistral model folder of any size with weights that
 * look like noise, the same for the same arguments. For benches and size tests. Keys:
 * layers hidden ff heads kv_heads head_dim vocab window tied dtype (0 F32, 1 BF16,
 * 2 F16) shard_bytes. */
#include "io/hf_config.h"
#include "io/hf_folder.h"
#include "io/hf_layout.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/rng.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 22 };

struct settings {
    int64_t layers, hidden, ff, heads, kv_heads, head_dim, vocab, window, tied, dtype,
        shard_bytes;
};

static int set_key(struct settings *s, const char *text, struct err *err)
{
    const struct {
        const char *key;
        int64_t *to;
    } keys[] = {{"layers", &s->layers},
                {"hidden", &s->hidden},
                {"ff", &s->ff},
                {"heads", &s->heads},
                {"kv_heads", &s->kv_heads},
                {"head_dim", &s->head_dim},
                {"vocab", &s->vocab},
                {"window", &s->window},
                {"tied", &s->tied},
                {"dtype", &s->dtype},
                {"shard_bytes", &s->shard_bytes}};
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && i < sizeof keys / sizeof *keys; i++)
        if (strlen(keys[i].key) == (size_t)(equals - text) &&
            strncmp(keys[i].key, text, strlen(keys[i].key)) == 0) {
            *keys[i].to = (int64_t)strtod(equals + 1, NULL);
            return 0;
        }
    return err_set(err, ERR_USAGE, "unknown setting %s", text);
}

/* Random signs and fractions with exponents around 2^-7, in any of the types. */
static void fill(enum dtype t, uint64_t *to, uint64_t stream)
{
    static const struct {
        uint64_t keep, set;
    } masks[] = {[DTYPE_F32] = {0x80ffffff80ffffff, 0x3c0000003c000000},
                 [DTYPE_BF16] = {0x80ff80ff80ff80ff, 0x3c003c003c003c00},
                 [DTYPE_F16] = {0x87ff87ff87ff87ff, 0x2000200020002000}};
    uint64_t x = rng_u64(1, stream, 0) | 1;
    for (int i = 0; i < PIECE_BYTES / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        to[i] = (x & masks[t].keep) | masks[t].set;
    }
}

static int write_shard(const struct hf_layout *l, const struct hf_folder *f, int shard,
                       enum dtype t, uint64_t *room, struct err *err)
{
    char name[64];
    hf_layout_file(l, shard, name, sizeof name);
    const struct hf_shard *s = &l->shard[shard];
    if (hf_folder_put(f, name, s->header, s->header_bytes, err))
        return -1;
    char *path = file_join(f->temporary, name, err);
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    int rc = fd < 0 ? err_set_errno(err, 0, "%s", name) : 0;
    for (int64_t at = (int64_t)s->header_bytes; at < s->bytes && rc == 0;
         at += PIECE_BYTES) {
        int64_t n = s->bytes - at < PIECE_BYTES ? s->bytes - at : (int64_t)PIECE_BYTES;
        fill(t, room, ((uint64_t)shard << 40) + (uint64_t)at);
        rc = file_pwrite(fd, path, room, (size_t)n, at, err);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

static int write_folder(const char *folder, const struct settings *s, struct err *err)
{
    const struct model_shape shape = {.arch = ARCH_MISTRAL,
                                      .layers = (int)s->layers,
                                      .hidden = (int)s->hidden,
                                      .ff = (int)s->ff,
                                      .heads = (int)s->heads,
                                      .kv_heads = (int)s->kv_heads,
                                      .head_dim = (int)s->head_dim,
                                      .vocab = (int)s->vocab,
                                      .max_positions = 4096,
                                      .window = (int)s->window,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-5,
                                      .tied = s->tied,
                                      .bos_id = 1,
                                      .eos_id = 2};
    if (shape_check(&shape, err))
        return -1;
    struct hf_layout l = {0};
    struct hf_folder f = {0};
    int n = table_count(&shape), rc = -1;
    enum dtype t = (enum dtype)s->dtype, *dtype = mem_array(n, sizeof *dtype, err);
    uint64_t *room = mem_array(PIECE_BYTES, 1, err);
    char *text = NULL;
    for (int i = 0; dtype && i < n; i++)
        dtype[i] = t;
    if (!dtype || !room || hf_layout_init(&l, &shape, dtype, s->shard_bytes, err) ||
        hf_folder_create(&f, folder, false, l.tensor_bytes, err))
        goto out;
    text = hf_config_write(NULL, 0, &shape, &t, err);
    rc = text ? hf_folder_put(&f, "config.json", text, strlen(text), err) : -1;
    free(text);
    for (int i = 0; i < l.shards && rc == 0; i++)
        rc = write_shard(&l, &f, i, t, room, err);
    if (rc == 0 && l.shards > 1) {
        text = hf_layout_index(&l, err);
        rc = text ? hf_folder_put(&f, "model.safetensors.index.json", text,
                                  strlen(text), err)
                  : -1;
        free(text);
    }
    if (rc == 0)
        rc = hf_folder_commit(&f, NULL, err);
    if (rc == 0)
        printf("%s: %d tensors, %lld bytes, %d files\n", folder, n,
               (long long)l.tensor_bytes, l.shards);
out:
    hf_folder_abort(&f);
    hf_layout_fini(&l);
    mem_free(dtype);
    mem_free(room);
    return rc;
}

int main(int argc, char **argv)
{
    struct settings s = {.layers = 2,
                         .hidden = 64,
                         .ff = 176,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 16,
                         .vocab = 512,
                         .dtype = DTYPE_BF16,
                         .shard_bytes = 5000000000};
    struct err err = {0};
    int rc = argc < 2 ? err_set(&err, ERR_USAGE, "make_hf FOLDER KEY=NUMBER...") : 0;
    for (int i = 2; i < argc && rc == 0; i++)
        rc = set_key(&s, argv[i], &err);
    if (rc == 0)
        rc = write_folder(argv[1], &s, &err);
    if (rc)
        fprintf(stderr, "make_hf: %s\n", err.text);
    return rc ? (int)err.code : 0;
}
