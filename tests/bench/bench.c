/* What the benchmark does to a file system, without the cost of an interpreter in between.
 *
 *   bench create DIR N BYTES     makes DIR, then N files in it: open, write, close. Prints files/s
 *   bench tree DIR N MAX         a source tree: N files of 100 to MAX bytes of text in N/10 folders,
 *                                a symlink for each 50; the same tree each time. Prints its entries
 *   bench write FILE MIB         writes MIB mebibytes, 1 MiB a write, until close. Prints MB/s
 *   bench read FILE              reads it, 1 MiB a read. Prints MB/s
 *
 * Written bytes do not compress and do not repeat.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, PATH_LEN = 4096 };

static uint64_t state = 0x9e3779b97f4a7c15ULL;

static uint64_t next(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *from, size_t len, const char *path) {
    while (len > 0) {
        ssize_t n = write(fd, from, len);
        if (n < 0) die(path);
        from += n;
        len -= (size_t)n;
    }
}

/* Random bytes that differ from piece to piece, at the speed of memory. */
static uint64_t pool[PIECE / 8], piece[PIECE / 8];

static void fill_pool(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    state ^= (uint64_t)t.tv_nsec * 0x2545f4914f6cdd1dULL + (uint64_t)t.tv_sec;
    for (size_t i = 0; i < PIECE / 8; i++) pool[i] = next();
}

static void fresh_piece(size_t bytes) {
    uint64_t key = next();
    for (size_t i = 0; i < (bytes + 7) / 8; i++) piece[i] = pool[i] ^ key;
}

static void create(const char *dir, long count, size_t bytes) {
    char path[PATH_LEN];
    if (bytes > PIECE) { errno = E2BIG; die(dir); }
    fill_pool();
    if (mkdir(dir, 0755) < 0) die(dir);
    double begin = now();
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/f%ld", dir, i);
        fresh_piece(bytes);
        int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0644);
        if (fd < 0) die(path);
        write_all(fd, (char *)piece, bytes, path);
        if (close(fd) < 0) die(path);
    }
    printf("%.0f\n", count / (now() - begin));
}

/* Lines that compress as source code does. */
static size_t text(char *out, size_t bytes) {
    static const char *words[] = {"return", "static", "int", "size", "if (", "buffer", "len", "= 0;", "for", "->next",
                                  "const", "char *", "NULL", "} else {", "name", "error", "struct", "node", "++i", "//"};
    size_t n = 0;
    while (n < bytes) {
        uint64_t r = next();
        const char *word = words[r % 20];
        size_t len = strlen(word);
        if (r % 11 == 0) len = (size_t)snprintf(out + n, 32, "%llx\n", (unsigned long long)(r >> 40));
        else { memcpy(out + n, word, len); out[n + len++] = ' '; }
        n += len;
    }
    return bytes;
}

/* Nothing in the tree is younger than this: git need not look into files that it saw already. */
static const struct timespec old[2] = {{1600000000, 0}, {1600000000, 0}};

/* Folder number `i` of `count`: up to four levels, ten at the top. */
static void folder_of(char *out, const char *dir, long i) {
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%ld", i);
    int at = sprintf(out, "%s", dir);
    for (int d = 0; d < n; d++) at += sprintf(out + at, "/%s%c", d == 0 ? "part" : "sub", digits[d]);
}

static void tree(const char *dir, long count, size_t most) {
    char folder[PATH_LEN], path[PATH_LEN + 64];
    char *buffer = malloc(most + 64);
    long folders = count / 10 + 1, entries = 0;
    if (!buffer) die("memory");
    if (mkdir(dir, 0755) < 0) die(dir);
    for (long i = 0; i < folders; i++, entries++) {
        folder_of(folder, dir, i);
        if (mkdir(folder, 0755) < 0) die(folder);
    }
    for (long i = 0; i < count; i++, entries++) {
        /* Spread evenly over the orders of size. */
        size_t bytes = 100, room = most;
        for (uint64_t r = next(); bytes * 2 < room && (r & 3); r >>= 2) bytes *= 2;
        bytes += next() % bytes;
        if (bytes > most) bytes = most;
        folder_of(folder, dir, i % folders);
        snprintf(path, sizeof path, "%s/module_%ld.%s", folder, i, i % 3 ? "c" : "h");
        int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0644);
        if (fd < 0) die(path);
        write_all(fd, buffer, text(buffer, bytes), path);
        if (futimens(fd, old) < 0 || close(fd) < 0) die(path);
        if (i % 50 == 0) {
            char link[PATH_LEN + 64], target[64];
            snprintf(link, sizeof link, "%s/link_%ld", folder, i);
            snprintf(target, sizeof target, "module_%ld.%s", i, i % 3 ? "c" : "h");
            if (symlink(target, link) < 0 || utimensat(AT_FDCWD, link, old, AT_SYMLINK_NOFOLLOW) < 0) die(link);
            entries++;
        }
    }
    for (long i = 0; i < folders; i++) {
        folder_of(folder, dir, i);
        if (utimensat(AT_FDCWD, folder, old, 0) < 0) die(folder);
    }
    free(buffer);
    printf("%ld\n", entries);
}

static void write_file(const char *path, long mib) {
    fill_pool();
    double begin = now();
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0) die(path);
    for (long i = 0; i < mib; i++) {
        fresh_piece(PIECE);
        write_all(fd, (char *)piece, PIECE, path);
    }
    if (close(fd) < 0) die(path);
    printf("%.1f\n", mib * (PIECE / 1e6) / (now() - begin));
}

static void read_file(const char *path) {
    double begin = now(), bytes = 0;
    int fd = open(path, O_RDONLY);
    if (fd < 0) die(path);
    for (;;) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0) die(path);
        if (n == 0) break;
        bytes += (double)n;
    }
    close(fd);
    printf("%.1f\n", bytes / 1e6 / (now() - begin));
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "";
    if (!strcmp(what, "create") && argc == 5) create(argv[2], atol(argv[3]), (size_t)atol(argv[4]));
    else if (!strcmp(what, "tree") && argc == 5) tree(argv[2], atol(argv[3]), (size_t)atol(argv[4]));
    else if (!strcmp(what, "write") && argc == 4) write_file(argv[2], atol(argv[3]));
    else if (!strcmp(what, "read") && argc == 3) read_file(argv[2]);
    else {
        fprintf(stderr, "usage: bench create DIR N BYTES | tree DIR N MAX | write FILE MIB | read FILE\n");
        return 2;
    }
    return 0;
}
