/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
/* A library to preload (glibc): counts who allocates. Calls from the program itself and
 * from libraries are told apart by the return address. A free counts as the program's
 * own if the program allocated: by its return address alone, a library's tail call
 * would. At exit each process appends one line to the file that COUNT_ALLOC names:
 *
 *     PROGRAM own_alloc N own_free N lib_alloc N lib_free N mmap N thread N fault N
 *
 * and, for each place in the program that allocated, "PROGRAM at 0xOFFSET N" (for
 * addr2line -e). Two runs that differ in their number of steps, subtracted, say what a
 * step does. mmap counts calls through the C library, not malloc's own. Huge pages are
 * off, whose presence changes from process to process with what else the machine does
 * and decides whether 2 MiB cost one fault or 512. */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *p);

enum { OWN_ALLOC, OWN_FREE, LIB_ALLOC, LIB_FREE, MMAP, THREAD, COUNTS };
enum { PLACES = 512, LIVE_BITS = 17, LIVE = 1 << LIVE_BITS, NEAR = 64 };

static atomic_long count[COUNTS];
static atomic_uintptr_t live[LIVE];
static uintptr_t program_base, program_end;
static struct {
    atomic_uintptr_t at;
    atomic_long calls;
} place[PLACES];

static int find_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    program_base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
                            info->dlpi_phdr[i].p_memsz;
            program_end = end > program_end ? end : program_end;
        }
    return 1; /* the first object is the program */
}

__attribute__((constructor)) static void begin(void)
{
    dl_iterate_phdr(find_program, NULL);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static uintptr_t hash(uintptr_t key)
{
    return (key >> 4) * 0x9e3779b97f4a7c15u >> (64 - LIVE_BITS);
}

/* Remembers a block of the program's own; a full table forgets. */
static void remember(void *p)
{
    for (uintptr_t i = 0, at = hash((uintptr_t)p); i < NEAR; i++) {
        uintptr_t was = 0, slot = (at + i) % LIVE;
        if (atomic_compare_exchange_strong(&live[slot], &was, (uintptr_t)p))
            return;
    }
}

static int forget(void *p)
{
    for (uintptr_t i = 0, at = hash((uintptr_t)p); i < NEAR; i++) {
        uintptr_t was = (uintptr_t)p, slot = (at + i) % LIVE;
        if (atomic_compare_exchange_strong(&live[slot], &was, 0))
            return 1;
    }
    return 0;
}

static void *note(void *caller, void *p)
{
    uintptr_t at = (uintptr_t)caller;
    if (at < program_base || at >= program_end) {
        count[LIB_ALLOC]++;
        return p;
    }
    count[OWN_ALLOC]++;
    remember(p);
    for (uintptr_t i = 0; i < PLACES; i++) {
        uintptr_t slot = (at + i) % PLACES, was = 0;
        if (atomic_compare_exchange_strong(&place[slot].at, &was, at) || was == at) {
            place[slot].calls++;
            break;
        }
    }
    return p;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t bytes)
{
    return note(CALLER, __libc_malloc(bytes));
}

void *calloc(size_t n, size_t size)
{
    return note(CALLER, __libc_calloc(n, size));
}

void free(void *p)
{
    if (p)
        count[forget(p) ? OWN_FREE : LIB_FREE]++;
    __libc_free(p);
}

void *realloc(void *p, size_t bytes)
{
    if (p)
        forget(p);
    return note(CALLER, __libc_realloc(p, bytes));
}

void *memalign(size_t alignment, size_t bytes)
{
    return note(CALLER, __libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return note(CALLER, __libc_memalign(alignment, bytes));
}

int posix_memalign(void **p, size_t alignment, size_t bytes)
{
    *p = note(CALLER, __libc_memalign(alignment, bytes));
    return *p ? 0 : ENOMEM;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    count[MMAP]++;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mmap");
    return real(at, bytes, protection, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*run)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    count[THREAD]++;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, run, argument);
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("COUNT_ALLOC");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd < 0)
        return;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    dprintf(
        fd,
        "%s own_alloc %ld own_free %ld lib_alloc %ld lib_free %ld mmap %ld thread %ld "
        "fault %ld\n",
        program_invocation_short_name, count[OWN_ALLOC], count[OWN_FREE],
        count[LIB_ALLOC], count[LIB_FREE], count[MMAP], count[THREAD],
        usage.ru_minflt + usage.ru_majflt);
    for (int i = 0; i < PLACES; i++)
        if (place[i].calls)
            dprintf(fd, "%s at %#lx %ld\n", program_invocation_short_name,
                    (unsigned long)(place[i].at - program_base), place[i].calls);
    close(fd);
}
