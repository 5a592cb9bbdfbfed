/* Loaded before libc (LD_PRELOAD): parts of a file can't be read, as on a memory card that dies.
 *
 * UNREADABLE_INODE is the file's, whatever its name, UNREADABLE_PIECES the pieces of 4096 bytes that
 * answer with EIO, as "3,7", and UNREADABLE_TIMES how many reads fail before all is well; 0: always.
 * As with the kernel, a read ends before such a piece, and fails at it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define PIECE 4096
#define UNTOUCHED ((size_t)-1)

static int failed;

static int is_unreadable(off_t piece)
{
    const char *text = getenv("UNREADABLE_PIECES");
    while (text && *text) {
        char *end;
        if (strtol(text, &end, 10) == piece)
            return 1;
        text = *end ? end + 1 : end;
    }
    return 0;
}

/* How many bytes may be read; UNTOUCHED if it is another file, 0 if the first can't be read. */
static size_t readable(int file, size_t bytes, off_t at)
{
    struct stat status;
    const char *inode = getenv("UNREADABLE_INODE"), *times = getenv("UNREADABLE_TIMES");
    if (!inode || !bytes || fstat(file, &status) || status.st_ino != strtoull(inode, NULL, 10))
        return UNTOUCHED;
    if (times && atoi(times) && failed >= atoi(times))
        return UNTOUCHED;
    for (off_t piece = at / PIECE; piece * PIECE < at + (off_t)bytes; piece++)
        if (is_unreadable(piece)) {
            size_t before = piece * PIECE > at ? (size_t)(piece * PIECE - at) : 0;
            failed += !before;
            return before;
        }
    return UNTOUCHED;
}

#define CUT(file, bytes, at)                                                                       \
    size_t limit = readable(file, bytes, at);                                                      \
    if (!limit) {                                                                                  \
        errno = EIO;                                                                               \
        return -1;                                                                                 \
    }                                                                                              \
    if (limit < bytes)                                                                             \
        bytes = limit;

ssize_t read(int file, void *to, size_t bytes)
{
    static ssize_t (*next)(int, void *, size_t);
    CUT(file, bytes, lseek(file, 0, SEEK_CUR))
    if (!next)
        next = dlsym(RTLD_NEXT, "read");
    return next(file, to, bytes);
}

ssize_t pread(int file, void *to, size_t bytes, off_t at)
{
    static ssize_t (*next)(int, void *, size_t, off_t);
    CUT(file, bytes, at)
    if (!next)
        next = dlsym(RTLD_NEXT, "pread");
    return next(file, to, bytes, at);
}

ssize_t pread64(int file, void *to, size_t bytes, off64_t at)
{
    return pread(file, to, bytes, at);
}

ssize_t sendfile(int out, int file, off_t *at, size_t bytes)
{
    static ssize_t (*next)(int, int, off_t *, size_t);
    CUT(file, bytes, at ? *at : lseek(file, 0, SEEK_CUR))
    if (!next)
        next = dlsym(RTLD_NEXT, "sendfile");
    return next(out, file, at, bytes);
}

ssize_t sendfile64(int out, int file, off64_t *at, size_t bytes)
{
    return sendfile(out, file, at, bytes);
}
