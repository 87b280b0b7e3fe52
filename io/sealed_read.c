/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sealed_parts.h"

#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { READ_BYTES = 1 << 20 }; /* hashed while still in the cache */

struct sealed {
    char *path;
    int fd;
    struct seal seal;
    struct sealed_table table;
    uint64_t *sum;           /* [table.blocks], from the file */
    unsigned char *verified; /* [table.blocks], by sealed_read_any */
    unsigned char *block;    /* SEALED_BLOCK_BYTES, for sealed_read_any */
};

/* Opens the file and reads its seal, as every rank does. */
static int open_seal(struct sealed *s, struct err *err)
{
    struct stat st;
    unsigned char block[SEAL_BYTES];
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        return err_set_errno(err, 1, "%s: cannot open", s->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT, "%s: expected a regular file", s->path);
    if (st.st_size < SEAL_BYTES)
        return err_set(err, ERR_INPUT,
                       "%s: not a file that dusk wrote, or cut: it has %lld bytes, the "
                       "seal alone takes %d",
                       s->path, (long long)st.st_size, SEAL_BYTES);
    if (file_pread(s->fd, s->path, block, sizeof block, 0, err) < 0 ||
        seal_decode(&s->seal, block, s->path, err) < 0)
        return -1;
    if (st.st_size != s->seal.file_bytes)
        return err_set(err, ERR_INPUT, "%s: %s: it has %lld bytes, its seal says %lld",
                       s->path, st.st_size < s->seal.file_bytes ? "cut" : "grown",
                       (long long)st.st_size, (long long)s->seal.file_bytes);
    return 0;
}

/* Does the table that HDF5 read put the arrays where the seal has them? */
static int compare_extents(const struct sealed *s, struct err *err)
{
    struct seal found;
    if (seal_of_table(&found, &s->table, err) < 0)
        return err_prefix(err, "%s", s->path);
    bool same = found.extents == s->seal.extents;
    for (int i = 0; same && i < found.extents; i++)
        same = found.extent[i].offset == s->seal.extent[i].offset &&
               found.extent[i].bytes == s->seal.extent[i].bytes;
    if (!same)
        return err_set(err, ERR_INPUT,
                       "%s: its arrays do not lie where its seal says they do",
                       s->path);
    return 0;
}

static int read_sums(struct sealed *s, struct err *err)
{
    s->sum = mem_array(s->table.blocks, sizeof *s->sum, err);
    if (!s->sum)
        return -1;
    for (int i = 0; i < s->table.arrays; i++) {
        const struct sealed_place *p = &s->table.place[i];
        if (p->blocks &&
            file_pread(s->fd, s->path, s->sum + p->first_block,
                       (size_t)p->blocks * sizeof *s->sum, p->sums, err) < 0)
            return -1;
    }
    return 0;
}

static int open_on_root(struct sealed *s, struct err *err)
{
    uint64_t hash;
    if (open_seal(s, err) < 0 ||
        seal_hash_outside(s->fd, s->path, &s->seal, -1, &hash, err) < 0)
        return -1;
    if (hash != s->seal.outside)
        return err_set(err, ERR_INPUT,
                       "%s: damaged: its structure (names, attributes, checksums) "
                       "hashes to %016llx, its seal says %016llx",
                       s->path, (unsigned long long)hash,
                       (unsigned long long)s->seal.outside);
    if (sealed_h5_read(s->fd, s->path, &s->table, err) < 0 ||
        sealed_table_number(&s->table, err) < 0 || compare_extents(s, err) < 0)
        return -1;
    s->table.file_bytes = s->seal.file_bytes;
    return read_sums(s, err);
}

/* The other ranks take the table from rank 0, once they see the same file. */
static int open_on_others(struct sealed *s, uint64_t identity, struct err *err)
{
    if (open_seal(s, err) < 0)
        return -1;
    if (s->seal.self != identity)
        return err_set(err, ERR_INPUT,
                       "%s: rank 0 sees another file under this name (seal %016llx, "
                       "here %016llx)",
                       s->path, (unsigned long long)identity,
                       (unsigned long long)s->seal.self);
    s->sum = mem_array(s->table.blocks, sizeof *s->sum, err);
    return s->sum ? 0 : -1;
}

struct sealed *sealed_open(struct comm *c, const char *path, struct err *err)
{
    struct sealed *s = calloc(1, sizeof *s);
    CHECK(s, "no memory for a file");
    s->fd = -1;
    s->path = strdup(path);
    CHECK(s->path, "no memory for a path");
    bool root = comm_root(c);
    if (comm_agree(c, root && open_on_root(s, err) < 0, err) < 0) {
        sealed_close(s);
        return NULL;
    }
    sealed_table_bcast(c, &s->table);
    uint64_t identity = s->seal.self;
    comm_bcast(c, &identity, sizeof identity, 0);
    if (comm_agree(c, !root && open_on_others(s, identity, err) < 0, err) < 0) {
        sealed_close(s);
        return NULL;
    }
    comm_bcast(c, s->sum, (size_t)s->table.blocks * sizeof *s->sum, 0);
    return s;
}

void sealed_close(struct sealed *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    sealed_table_fini(&s->table);
    mem_free(s->sum);
    mem_free(s->verified);
    mem_free(s->block);
    free(s->path);
    free(s);
}

int sealed_arrays(const struct sealed *s)
{
    return s->table.arrays;
}

const struct sealed_array *sealed_array_at(const struct sealed *s, int i)
{
    return &s->table.array[i];
}

int sealed_find(const struct sealed *s, const char *path)
{
    for (int i = 0; i < s->table.arrays; i++)
        if (strcmp(s->table.array[i].path, path) == 0)
            return i;
    return -1;
}

int sealed_attrs(const struct sealed *s)
{
    return s->table.attrs;
}

const struct sealed_attr *sealed_attr_at(const struct sealed *s, int i)
{
    return &s->table.attr[i];
}

const struct sealed_attr *sealed_attr_find(const struct sealed *s, const char *group,
                                           const char *name)
{
    for (int i = 0; i < s->table.attrs; i++)
        if (strcmp(s->table.attr[i].group, group) == 0 &&
            strcmp(s->table.attr[i].name, name) == 0)
            return &s->table.attr[i];
    return NULL;
}

uint64_t sealed_identity(const struct sealed *s)
{
    return s->seal.self;
}

const char *sealed_path(const struct sealed *s)
{
    return s->path;
}

int64_t sealed_file_bytes(const struct sealed *s)
{
    return s->seal.file_bytes;
}

const struct sealed_table *sealed_table_of(const struct sealed *s)
{
    return &s->table;
}

static int verify(const struct sealed *s, int array, int64_t block, const void *data,
                  size_t bytes, struct err *err)
{
    if (XXH3_64bits(data, bytes) == s->sum[block])
        return 0;
    const struct sealed_place *p = &s->table.place[array];
    int64_t in_array = block - p->first_block;
    int64_t begin = in_array % p->layer_blocks * SEALED_BLOCK_BYTES;
    char name[128];
    sealed_table_name(&s->table, array, in_array / p->layer_blocks, name, sizeof name);
    return err_set(err, ERR_INPUT,
                   "%s: damaged: bytes %lld to %lld of %s do not match their checksum",
                   s->path, (long long)begin, (long long)begin + (long long)bytes - 1,
                   name);
}

static int refuse_virtual(const struct sealed *s, int array, struct err *err)
{
    CHECK(array >= 0 && array < s->table.arrays, "array %d", array);
    if (!s->table.array[array].source_path)
        return 0;
    return err_set(err, ERR_INPUT, "%s: %s is a link to %s and holds no data", s->path,
                   s->table.array[array].path, s->table.array[array].source_path);
}

int sealed_read(struct sealed *s, int array, int64_t layer, int64_t begin, void *data,
                size_t bytes, struct err *err)
{
    if (refuse_virtual(s, array, err) < 0)
        return -1;
    int64_t block = sealed_table_block(&s->table, array, layer, begin, bytes);
    const struct sealed_place *p = &s->table.place[array];
    int64_t at = p->offset + layer * p->layer_bytes + begin;
    char *to = data;
    for (size_t done = 0; done < bytes;) {
        size_t n = bytes - done < READ_BYTES ? bytes - done : READ_BYTES;
        if (file_pread(s->fd, s->path, to + done, n, at + (int64_t)done, err) < 0)
            return -1;
        for (size_t end = done + n; done < end; block++) {
            size_t m =
                end - done < SEALED_BLOCK_BYTES ? end - done : SEALED_BLOCK_BYTES;
            if (verify(s, array, block, to + done, m, err) < 0)
                return -1;
            done += m;
        }
    }
    return 0;
}

static int prepare_any(struct sealed *s, struct err *err)
{
    if (!s->verified)
        s->verified = mem_array(s->table.blocks, 1, err);
    if (!s->block)
        s->block = mem_array(SEALED_BLOCK_BYTES, 1, err);
    return s->verified && s->block ? 0 : -1;
}

int sealed_read_any(struct sealed *s, int array, int64_t begin, void *data,
                    size_t bytes, struct err *err)
{
    if (refuse_virtual(s, array, err) < 0 || prepare_any(s, err) < 0)
        return -1;
    const struct sealed_place *p = &s->table.place[array];
    CHECK(p->layers == 1 && begin >= 0 && (int64_t)bytes <= p->bytes - begin,
          "%s: bytes [%lld, +%zu) of %lld", s->table.array[array].path,
          (long long)begin, bytes, (long long)p->bytes);
    char *to = data;
    while (bytes) {
        int64_t in_array = begin / SEALED_BLOCK_BYTES;
        int64_t first = in_array * SEALED_BLOCK_BYTES,
                block = p->first_block + in_array;
        int64_t left = p->bytes - first;
        size_t whole = left < SEALED_BLOCK_BYTES ? (size_t)left : SEALED_BLOCK_BYTES;
        size_t skip = (size_t)(begin - first);
        size_t n = whole - skip < bytes ? whole - skip : bytes;
        if (s->verified[block]) {
            if (file_pread(s->fd, s->path, to, n, p->offset + begin, err) < 0)
                return -1;
        } else {
            if (file_pread(s->fd, s->path, s->block, whole, p->offset + first, err) <
                    0 ||
                verify(s, array, block, s->block, whole, err) < 0)
                return -1;
            s->verified[block] = 1;
            memcpy(to, s->block + skip, n);
        }
        to += n;
        begin += (int64_t)n;
        bytes -= n;
    }
    return 0;
}
