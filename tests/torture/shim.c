/* A library to be preloaded: it sees every call by which the process changes files below one
 * directory, notes them in a log, and ends the process at a chosen one.
 *
 *   SHIM_DIR    calls about files below this directory count; others pass unseen
 *   SHIM_LOG    where to note them (appended); not set: nothing is noted
 *   SHIM_KILL   number of the call that is not made any more: the process is killed instead
 *   SHIM_TORN   1: if that call is a write, a part of it is made first
 *   SHIM_SLOW   syncs of files take up to so many microseconds longer, so that more waits for them
 *   SHIM_CONTROL  a file of 16 numbers (struct control) by which another process asks for faults while this one runs
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
 * counted, but is no sync. The faults of the control file are not noted. Every position comes from the call itself or, for write(2), from where
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
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
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
/* Below what of the directory it is. */
static unsigned kinds[FDS];
/* Its next sync tells of one that failed through another descriptor, as Linux has it. */
static int owed[FDS];

/* The journal's slots, its directory, sled's files, all else; and for holds: writes too, not only syncs. */
enum { JOURNAL = 1, CATALOG = 2, OTHER = 4, NAMES = 8, WRITES = 16 };

/* What another process asks for, and what it is told. */
struct control {
    _Atomic uint64_t where;       /* which files the next three concern, see above */
    _Atomic uint64_t hold;        /* 0: none; else syncs that begin wait for so many microseconds, or until this is 0 */
    _Atomic uint64_t fail_syncs;  /* so many syncs fail with EIO, and take with them what was written before */
    _Atomic uint64_t fail_writes; /* so many writes fail with EIO */
    _Atomic uint64_t full;        /* 1: nothing can be made or grow, ENOSPC */
    _Atomic int64_t clock;        /* the wall clock is off by so many nanoseconds */
    _Atomic uint64_t holds;       /* syncs that were made to wait, counted when they begin to */
    _Atomic uint64_t failed;      /* calls that failed with EIO */
    _Atomic uint64_t again;       /* syncs of a file one of whose syncs had failed */
    _Atomic uint64_t refused;     /* calls that failed with ENOSPC */
    _Atomic uint64_t clocks;      /* how often the shifted clock was read */
    _Atomic uint64_t lost;        /* bytes that a failed sync took with it */
    uint64_t spare[4];
};

static struct control *control;
static int (*real_clock)(clockid_t, struct timespec *);

/* Writes to the journal that no sync covers yet; the oldest are forgotten when there are too many. */
#define DIRTY 1024
static struct { uint64_t inode, number; off_t at; size_t length; } dirty[DIRTY];
static uint64_t dirty_number;
/* Files with a sync that failed. */
#define BROKEN 64
static uint64_t broken[BROKEN];
static unsigned broken_next;

static void map_control(const char *path) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) abort();
    syscall(SYS_close, fd);
}

__attribute__((constructor)) static void start(void) {
    const char *value = getenv("SHIM_DIR");
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!value) return;
    dir_length = strlen(value);
    memcpy(dir, value, dir_length + 1);
    if ((value = getenv("SHIM_KILL"))) kill_at = strtoull(value, NULL, 10);
    if ((value = getenv("SHIM_TORN"))) torn = atoi(value);
    if ((value = getenv("SHIM_SLOW"))) slow = atoi(value);
    if ((value = getenv("SHIM_CONTROL"))) map_control(value);
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

/* --- faults that are asked for while the process runs ------------------------------------------- */

static unsigned kind_of(const char *path) {
    path += dir_length;
    if (strcmp(path, "/journal") == 0) return NAMES;
    if (strncmp(path, "/journal/", 9) == 0) return JOURNAL;
    return strncmp(path, "/catalog", 8) == 0 ? CATALOG : OTHER;
}

static int concerned(int fd) { return control && (kinds[fd] & control->where); }

static int take_one(_Atomic uint64_t *left) {
    uint64_t before = *left;
    while (before && !atomic_compare_exchange_weak(left, &before, before - 1)) {}
    return before != 0;
}

static int fails(_Atomic uint64_t *count, int error) {
    atomic_fetch_add(count, 1);
    errno = error;
    return 1;
}

static int is_full(void) { return control && control->full && fails(&control->refused, ENOSPC); }

static uint64_t steady(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

static void hold(int fd) {
    uint64_t time = concerned(fd) ? control->hold : 0, start = steady();
    if (!time) return;
    atomic_fetch_add(&control->holds, 1);
    while (control->hold && steady() - start < time) usleep(2000);
}

static int write_fails(int fd, off_t end) {
    struct stat stat;
    if (!control) return 0;
    if (concerned(fd) && take_one(&control->fail_writes)) return fails(&control->failed, EIO);
    return control->full && syscall(SYS_fstat, fd, &stat) == 0 && end > stat.st_size && is_full();
}

static void note_dirty(int fd, off_t at, ssize_t length) {
    if (!control || kinds[fd] != JOURNAL || length <= 0) return;
    pthread_mutex_lock(&lock);
    uint64_t number = ++dirty_number;
    unsigned at_entry = number % DIRTY;
    dirty[at_entry].inode = inodes[fd];
    dirty[at_entry].number = number;
    dirty[at_entry].at = at;
    dirty[at_entry].length = length;
    pthread_mutex_unlock(&lock);
}

static uint64_t writes_so_far(void) {
    if (!control) return 0;
    pthread_mutex_lock(&lock);
    uint64_t number = dirty_number;
    pthread_mutex_unlock(&lock);
    return number;
}

/* A sync that began after write `number` has returned. */
static void covered(uint64_t inode, uint64_t number) {
    if (!control) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < DIRTY; i++)
        if (dirty[i].inode == inode && dirty[i].number <= number) dirty[i].inode = 0;
    pthread_mutex_unlock(&lock);
}

/* The kernel could not write these pages and calls them clean: what was in them is gone. */
static void lose(int fd, uint64_t inode) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < DIRTY; i++) {
        void *zeros;
        if (dirty[i].inode != inode) continue;
        if (posix_memalign(&zeros, 4096, dirty[i].length)) abort();
        memset(zeros, 0, dirty[i].length);
        if (syscall(SYS_pwrite64, fd, zeros, dirty[i].length, dirty[i].at) < 0) abort();
        free(zeros);
        atomic_fetch_add(&control->lost, dirty[i].length);
        dirty[i].inode = 0;
    }
    for (int other = 0; other < FDS; other++)
        if (other != fd && inodes[other] == inode) owed[other] = 1;
    broken[broken_next++ % BROKEN] = inode;
    pthread_mutex_unlock(&lock);
}

static void mend(uint64_t inode) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BROKEN; i++)
        if (broken[i] == inode) broken[i] = 0;
    pthread_mutex_unlock(&lock);
}

static int sync_fails(int fd, uint64_t inode) {
    if (!control) return 0;
    if (owed[fd]) {
        owed[fd] = 0;
        return fails(&control->failed, EIO);
    }
    for (int i = 0; i < BROKEN; i++)
        if (broken[i] == inode) atomic_fetch_add(&control->again, 1);
    if (!concerned(fd) || !take_one(&control->fail_syncs)) return 0;
    lose(fd, inode);
    return fails(&control->failed, EIO);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int result = real_clock ? real_clock(which, now) : syscall(SYS_clock_gettime, which, now);
    if (result != 0 || !control || (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE)) return result;
    int64_t off = control->clock;
    if (!off) return result;
    atomic_fetch_add(&control->clocks, 1);
    int64_t nanos = now->tv_sec * 1000000000ll + now->tv_nsec + off;
    now->tv_sec = nanos / 1000000000;
    now->tv_nsec = nanos % 1000000000;
    return result;
}

/* ------------------------------------------------------------------------------------------------ */

static int opened(int fd, const char *path, int flags, int existed, uint64_t call) {
    struct stat stat;
    if (fd < 0) return fd;
    if (fd >= FDS || syscall(SYS_fstat, fd, &stat) != 0) abort();
    inodes[fd] = stat.st_ino;
    appending[fd] = (flags & O_APPEND) != 0;
    kinds[fd] = kind_of(path);
    owed[fd] = 0;
    if ((flags & O_CREAT) && !existed) mend(stat.st_ino);
    if ((flags & O_CREAT) && !existed) note('c', call, stat.st_ino, 0, path, strlen(path));
    if ((flags & O_TRUNC) && existed) note('t', call, stat.st_ino, 0, NULL, 0);
    return fd;
}

static int open_below(int at, const char *path, int flags, mode_t mode) {
    int changes = (flags & (O_CREAT | O_TRUNC)) != 0;
    int existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    if ((flags & O_CREAT) && !existed && is_full()) return -1;
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
    off_t end = position;
    for (int i = 0; i < count; i++) end += parts[i].iov_len;
    if (control && (control->where & WRITES)) hold(fd);
    if (write_fails(fd, end)) return -1;
    uint64_t call = count_call('w', inode, fd, position, parts, count);
    ssize_t result = moves ? syscall(SYS_writev, fd, parts, count)
                           : syscall(SYS_pwritev, fd, parts, count, (long)position, 0L);
    if (result >= 0) note('W', call, inode, result, NULL, 0);
    note_dirty(fd, position, result);
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
    uint64_t before = writes_so_far();
    if (slow) usleep(call * 7919 % slow);
    hold(fd);
    if (sync_fails(fd, inode)) return -1;
    int result = syscall(number, fd);
    if (result == 0) note('S', call, inode, 0, NULL, 0);
    if (result == 0) covered(inode, before);
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
    struct stat stat;
    if (!inode) return syscall(SYS_ftruncate, fd, size);
    if (syscall(SYS_fstat, fd, &stat) == 0 && size > stat.st_size && is_full()) return -1;
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
