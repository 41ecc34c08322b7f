/* A library to be preloaded: it sees every call by which the process changes files below one
 * directory, notes them in a log, and ends the process at a chosen one.
 *
 *   SHIM_DIR    calls about files below this directory count; others pass unseen
 *   SHIM_LOG    where to note them (appended); not set: nothing is noted
 *   SHIM_KILL   number of the call that is not made any more: the process is killed instead
 *   SHIM_TORN   1: if that call is a write, a part of it is made first
 *   SHIM_SLOW   syncs of files take up to so many microseconds longer, so that more waits for them
 *
 * The number counts over all threads. A record of the log, little endian, packed:
 *
 *   kind u8 | call u64 | inode u64 | a u64 | b u64 | length u32 | bytes
 *
 *   'w' a write begins: a = position, bytes = what is written      'W' it returned: a = bytes written
 *   's' a sync of a file or directory begins                       'S' it returned
 *   't' the size was set: a = size                                 'c' a file was made: bytes = path
 *   'm' a directory was made: bytes = path                         'r' renamed: bytes = old, 0, new
 *   'u' removed (file or directory): bytes = path
 *
 * All but 'w' and 's' are noted after the call has returned without an error. sync_file_range is
 * counted, but is no sync. Every position comes from the call itself or, for write(2), from where
 * the descriptor stands; the program does not share descriptors for writing between threads.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t calls;
static uint64_t kill_at;
static int torn;
static unsigned slow;
static int log_fd = -1;
static char dir[PATH_MAX];
static size_t dir_length;
/* Inode of each descriptor that is open below the directory, else 0. */
static uint64_t inodes[FDS];
static int appending[FDS];


__attribute__((constructor)) static void start(void) {
    const char *value = getenv("SHIM_DIR");
    if (!value) return;
    dir_length = strlen(value);
    memcpy(dir, value, dir_length + 1);
    if ((value = getenv("SHIM_KILL"))) kill_at = strtoull(value, NULL, 10);
    if ((value = getenv("SHIM_TORN"))) torn = atoi(value);
    if ((value = getenv("SHIM_SLOW"))) slow = atoi(value);
    if ((value = getenv("SHIM_LOG")))
        log_fd = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    return dir_length && strncmp(path, dir, dir_length) == 0 && (path[dir_length] == '/' || path[dir_length] == 0);
}

static uint64_t inode_of(int fd) { return fd >= 0 && fd < FDS ? inodes[fd] : 0; }

/* With the lock held. */
static void note_locked(char kind, uint64_t call, uint64_t inode, uint64_t a, uint64_t b, const struct iovec *parts, int count) {
    if (log_fd < 0) return;
    uint8_t head[37];
    uint32_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    head[0] = kind;
    memcpy(head + 1, &call, 8);
    memcpy(head + 9, &inode, 8);
    memcpy(head + 17, &a, 8);
    memcpy(head + 25, &b, 8);
    memcpy(head + 33, &length, 4);
    struct iovec all[18] = {{head, sizeof head}};
    if (count > 17) abort();
    memcpy(all + 1, parts, count * sizeof *parts);
    ssize_t wanted = sizeof head + length;
    if (syscall(SYS_writev, log_fd, all, count + 1) != wanted) abort();
}

static void note(char kind, uint64_t call, uint64_t inode, uint64_t a, const char *bytes, size_t length) {
    int saved = errno;
    struct iovec part = {(void *)bytes, length};
    pthread_mutex_lock(&lock);
    note_locked(kind, call, inode, a, 0, &part, 1);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a call; `fd` and the parts are set for a write. Everything is as it was if this returns. */
static uint64_t count_call(char kind, uint64_t inode, int fd, uint64_t position, const struct iovec *parts, int count) {
    pthread_mutex_lock(&lock);
    uint64_t call = ++calls;
    if (kind == 'w') note_locked('w', call, inode, position, 0, parts, count);
    if (kill_at && call >= kill_at) {
        if (kind == 'w' && torn && count == 1 && parts[0].iov_len > 512)
            syscall(SYS_pwrite64, fd, parts[0].iov_base, parts[0].iov_len / 2 / 512 * 512, position);
        die();
    }
    if (kind == 's') note_locked('s', call, inode, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return call;
}

static uint64_t count_other(void) { return count_call(0, 0, -1, 0, NULL, 0); }

static int opened(int fd, const char *path, int flags, int existed, uint64_t call) {
    struct stat stat;
    if (fd < 0) return fd;
    if (fd >= FDS || syscall(SYS_fstat, fd, &stat) != 0) abort();
    inodes[fd] = stat.st_ino;
    appending[fd] = (flags & O_APPEND) != 0;
    if ((flags & O_CREAT) && !existed) note('c', call, stat.st_ino, 0, path, strlen(path));
    if ((flags & O_TRUNC) && existed) note('t', call, stat.st_ino, 0, NULL, 0);
    return fd;
}

static int open_below(int at, const char *path, int flags, mode_t mode) {
    int changes = (flags & (O_CREAT | O_TRUNC)) != 0;
    int existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    uint64_t call = changes && (!existed || (flags & O_TRUNC)) ? count_other() : 0;
    return opened(syscall(SYS_openat, at, path, flags, mode), path, flags, existed, call);
}

#define OPEN_BODY(at) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
    if (below(path)) return open_below(at, path, flags, mode); \
    int fd = syscall(SYS_openat, at, path, flags, mode); \
    if (fd >= 0 && fd < FDS) inodes[fd] = 0; \
    return fd;

int open(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD) }
int open64(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD) }
int openat(int at, const char *path, int flags, ...) { OPEN_BODY(at) }
int openat64(int at, const char *path, int flags, ...) { OPEN_BODY(at) }

int close(int fd) {
    if (fd >= 0 && fd < FDS) inodes[fd] = 0;
    return syscall(SYS_close, fd);
}

static ssize_t write_below(int fd, uint64_t inode, const struct iovec *parts, int count, off_t position, int moves) {
    struct stat stat;
    if (moves) {
        if (appending[fd]) { syscall(SYS_fstat, fd, &stat); position = stat.st_size; }
        else position = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    }
    uint64_t call = count_call('w', inode, fd, position, parts, count);
    ssize_t result = moves ? syscall(SYS_writev, fd, parts, count)
                           : syscall(SYS_pwritev, fd, parts, count, (long)position, 0L);
    if (result >= 0) note('W', call, inode, result, NULL, 0);
    return result;
}

#define WRITE_BODY(number, position, moves, ...) \
    uint64_t inode = inode_of(fd); \
    if (!inode) return syscall(number, __VA_ARGS__); \
    struct iovec part = {(void *)bytes, length}; \
    return write_below(fd, inode, &part, 1, position, moves);

ssize_t write(int fd, const void *bytes, size_t length) { WRITE_BODY(SYS_write, 0, 1, fd, bytes, length) }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { WRITE_BODY(SYS_pwrite64, at, 0, fd, bytes, length, at) }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { WRITE_BODY(SYS_pwrite64, at, 0, fd, bytes, length, at) }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    uint64_t inode = inode_of(fd);
    if (!inode) return syscall(SYS_writev, fd, parts, count);
    return write_below(fd, inode, parts, count > 16 ? 16 : count, 0, 1);
}

static ssize_t pwritev_both(int fd, const struct iovec *parts, int count, off_t at) {
    uint64_t inode = inode_of(fd);
    if (!inode) return syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
    return write_below(fd, inode, parts, count > 16 ? 16 : count, at, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev_both(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev_both(fd, parts, count, at); }

static int sync_both(int number, int fd) {
    uint64_t inode = inode_of(fd);
    if (!inode) return syscall(number, fd);
    uint64_t call = count_call('s', inode, fd, 0, NULL, 0);
    if (slow) usleep(call * 7919 % slow);
    int result = syscall(number, fd);
    if (result == 0) note('S', call, inode, 0, NULL, 0);
    return result;
}
int fsync(int fd) { return sync_both(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_both(SYS_fdatasync, fd); }

int sync_file_range(int fd, off_t from, off_t length, unsigned flags) {
    if (inode_of(fd)) count_other();
    return syscall(SYS_sync_file_range, fd, from, length, flags);
}

static int set_size(int fd, off_t size) {
    uint64_t inode = inode_of(fd);
    if (!inode) return syscall(SYS_ftruncate, fd, size);
    uint64_t call = count_other();
    int result = syscall(SYS_ftruncate, fd, size);
    if (result == 0) note('t', call, inode, size, NULL, 0);
    return result;
}
int ftruncate(int fd, off_t size) { return set_size(fd, size); }
int ftruncate64(int fd, off_t size) { return set_size(fd, size); }

static int allocate(int fd, int mode, off_t at, off_t length) {
    uint64_t inode = inode_of(fd);
    struct stat stat;
    if (!inode) return syscall(SYS_fallocate, fd, mode, at, length);
    /* Only the plain kind occurs: what else it does to the contents would have to be noted. */
    if (mode & ~FALLOC_FL_KEEP_SIZE) abort();
    uint64_t call = count_other();
    int result = syscall(SYS_fallocate, fd, mode, at, length);
    if (result == 0 && syscall(SYS_fstat, fd, &stat) == 0) note('t', call, inode, stat.st_size, NULL, 0);
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t length) { return allocate(fd, mode, at, length); }
int fallocate64(int fd, int mode, off_t at, off_t length) { return allocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return allocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t length) { return allocate(fd, 0, at, length) ? errno : 0; }

static void full_path(int at, const char *path, char *full) {
    if (path[0] == '/' || at == AT_FDCWD) {
        snprintf(full, PATH_MAX, "%s", path);
        return;
    }
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, full, PATH_MAX - 1);
    if (length < 0) length = 0;
    snprintf(full + length, PATH_MAX - length, "/%s", path);
}

static int remove_both(int at, const char *path, int flags) {
    char full[PATH_MAX];
    full_path(at, path, full);
    if (!below(full)) return syscall(SYS_unlinkat, at, path, flags);
    uint64_t call = count_other();
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (result == 0) note('u', call, 0, 0, full, strlen(full));
    return result;
}
int unlink(const char *path) { return remove_both(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return remove_both(at, path, flags); }
int rmdir(const char *path) { return remove_both(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = remove_both(AT_FDCWD, path, 0);
    return result && errno == EISDIR ? rmdir(path) : result;
}

static int make_dir(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    struct stat stat = {0};
    full_path(at, path, full);
    if (!below(full)) return syscall(SYS_mkdirat, at, path, mode);
    uint64_t call = count_other();
    int result = syscall(SYS_mkdirat, at, path, mode);
    if (result == 0 && syscall(SYS_newfstatat, AT_FDCWD, full, &stat, 0) == 0)
        note('m', call, stat.st_ino, 0, full, strlen(full));
    return result;
}
int mkdir(const char *path, mode_t mode) { return make_dir(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return make_dir(at, path, mode); }

static int rename_both(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char old[2 * PATH_MAX], new[PATH_MAX];
    full_path(from_at, from, old);
    full_path(to_at, to, new);
    if (!below(old) && !below(new)) return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    uint64_t call = count_other();
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0) {
        size_t length = strlen(old) + 1;
        memcpy(old + length, new, strlen(new));
        note('r', call, 0, 0, old, length + strlen(new));
    }
    return result;
}
int rename(const char *from, const char *to) { return rename_both(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return rename_both(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return rename_both(from_at, from, to_at, to, flags);
}
