/* Loaded before the C library (LD_PRELOAD): lets the n-th write below a folder fail, as a disk that is full.

   FAULT_UNDER  folder; writes to files elsewhere, to pipes and to terminals pass.
   FAULT_AT     number of the write that fails, from 1; 0: none. They are counted over all threads of the process.
   FAULT_FROM   "1": all later ones fail too, as while a disk stays full; otherwise that one alone.
   FAULT_COUNT  file to which the number of writes is written when the process ends.

   Counted: write, pwrite, writev, pwritev, and what gives a file its room or its name: ftruncate, posix_fallocate, rename, mkdir,
   link, and open where it makes a file. HDF5 and tensorstore write from C, so that nothing in Python could stand in for this. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long counted, at = -1;
static atomic_int stays, ready;
static char under[PATH_MAX];

static void prepare(void) {
    if (atomic_load(&ready)) return;
    const char *folder = getenv("FAULT_UNDER"), *number = getenv("FAULT_AT"), *from = getenv("FAULT_FROM");
    if (folder) snprintf(under, sizeof under, "%s/", folder);
    long asked = number ? atol(number) : 0, unset = -1;
    atomic_compare_exchange_strong(&at, &unset, asked);
    atomic_store(&stays, from && from[0] == '1');
    atomic_store(&ready, 1);
}

/* A fork counts anew, by its own environment. */
static void forget(void) {
    atomic_store(&counted, 0);
    atomic_store(&at, -1);
    atomic_store(&ready, 0);
}

__attribute__((constructor)) static void begin(void) { pthread_atfork(NULL, NULL, forget); }

/* For tests that stay in one process: from now on the number-th write fails; returns how many there have been. */
long fault_arm(long number, int from) {
    prepare();
    long before = atomic_exchange(&counted, 0);
    atomic_store(&stays, from);
    atomic_store(&at, number);
    return before;
}

static int below(const char *path) { return under[0] && strncmp(path, under, strlen(under)) == 0; }

static int fails(void) {
    long number = atomic_fetch_add(&counted, 1) + 1, asked = atomic_load(&at);
    return asked > 0 && (number == asked || (number > asked && atomic_load(&stays)));
}

static int fails_for(int descriptor) {
    char link[64], path[PATH_MAX];
    prepare();
    if (!under[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return below(path) && fails();
}

static int fails_at(const char *path) {
    char whole[PATH_MAX];
    prepare();
    if (!under[0]) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        size_t size = strlen(whole);
        snprintf(whole + size, sizeof whole - size, "/%s", path);
        path = whole;
    }
    return below(path) && fails();
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FULL return errno = ENOSPC, -1

ssize_t write(int d, const void *b, size_t n) { REAL(write); if (fails_for(d)) FULL; return real(d, b, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { REAL(pwrite); if (fails_for(d)) FULL; return real(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { REAL(pwrite64); if (fails_for(d)) FULL; return real(d, b, n, o); }
ssize_t writev(int d, const struct iovec *v, int n) { REAL(writev); if (fails_for(d)) FULL; return real(d, v, n); }
ssize_t pwritev(int d, const struct iovec *v, int n, off_t o) { REAL(pwritev); if (fails_for(d)) FULL; return real(d, v, n, o); }
int ftruncate(int d, off_t n) { REAL(ftruncate); if (fails_for(d)) FULL; return real(d, n); }
int ftruncate64(int d, off64_t n) { REAL(ftruncate64); if (fails_for(d)) FULL; return real(d, n); }
int posix_fallocate(int d, off_t o, off_t n) { REAL(posix_fallocate); if (fails_for(d)) return ENOSPC; return real(d, o, n); }
int rename(const char *a, const char *b) { REAL(rename); if (fails_at(b)) FULL; return real(a, b); }
int renameat(int d, const char *a, int e, const char *b) { REAL(renameat); if (fails_at(b)) FULL; return real(d, a, e, b); }
int mkdir(const char *p, mode_t m) { REAL(mkdir); if (fails_at(p)) FULL; return real(p, m); }
int link(const char *a, const char *b) { REAL(link); if (fails_at(b)) FULL; return real(a, b); }

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        REAL(name);                                                       \
        if ((flags & O_CREAT) && access(path, F_OK) && fails_at(path)) FULL; \
        return real(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

__attribute__((destructor)) static void say(void) {
    const char *file = getenv("FAULT_COUNT");
    if (!file) return;
    FILE *out = fopen(file, "w");
    if (!out) return;
    fprintf(out, "%ld\n", atomic_load(&counted));
    fclose(out);
}
