/* What people do to one another: `neighbour work KIND SECONDS` does one kind of honest work for a while and prints how
 * often a second; `neighbour harm KIND` does its worst until it is killed. Static, so that it runs in an empty image. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024L * 1024L)

static char block[1 << 16];

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void compute(void) {
    volatile uint64_t sum = 0;
    for (int i = 0; i < 1000000; i++) sum += (uint64_t)i * i;
}

static void memory(void) {
    char *all = mmap(0, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) fail("mmap");
    for (long at = 0; at < 16 * MIB; at += 4096) all[at] = 1;
    munmap(all, 16 * MIB);
}

static void process(void) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) _exit(0);
    waitpid(child, 0, 0);
}

/* A datagram to oneself and back. */
static void network(void) {
    static int fd = -1;
    static struct sockaddr_in self;
    if (fd < 0) {
        socklen_t length = sizeof self;
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        self.sin_family = AF_INET;
        self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (fd < 0 || bind(fd, (void *)&self, sizeof self) || getsockname(fd, (void *)&self, &length)) fail("socket");
    }
    if (sendto(fd, block, 512, 0, (void *)&self, sizeof self) < 0 || recv(fd, block, sizeof block, 0) < 0) fail("udp");
}

static void sync_write(void) {
    static int fd = -1;
    if (fd < 0) fd = open("/synced", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || pwrite(fd, block, 4096, 0) != 4096 || fsync(fd)) fail("write");
}

static const struct { const char *name; void (*once)(void); } works[] = {
    {"compute", compute}, {"memory", memory}, {"processes", process}, {"network", network}, {"fsync", sync_write},
};

static int work(const char *kind, double seconds) {
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        if (strcmp(works[i].name, kind)) continue;
        works[i].once();
        double begun = now();
        long count = 0;
        while (now() - begun < seconds) works[i].once(), count++;
        printf("%.3f\n", count / (now() - begun));
        return 0;
    }
    fprintf(stderr, "no work is called %s\n", kind);
    return 2;
}

static void fill(const char *path, long bytes, int sync) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (long at = 0; fd >= 0 && at < bytes; at += sizeof block) {
        if (write(fd, block, sizeof block) < 0) break;
        if (sync) fsync(fd);
    }
    if (fd >= 0) close(fd);
}

static void files(void) {
    char path[64];
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "/file-%d", i);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        if (fd >= 0) close(fd);
    }
    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "/file-%d", i);
        unlink(path);
    }
}

static void flood(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), yes = 1;
    struct sockaddr_in all = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_BROADCAST)};
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    for (;;) sendto(fd, block, 1400, 0, (void *)&all, sizeof all);
}

static void read_all(void) {
    int fd = open("/cached", O_RDONLY);
    while (fd >= 0 && read(fd, block, sizeof block) > 0) {}
    if (fd >= 0) close(fd);
}

static int harm(const char *kind) {
    signal(SIGCHLD, SIG_IGN);
    if (!strcmp(kind, "compute")) {
        for (int i = 0; i < 8; i++) if (fork() == 0) break;
        for (;;) compute();
    }
    if (!strcmp(kind, "memory")) {
        /* Each child takes what it gets, and is killed for it. */
        for (;;) {
            pid_t child = fork();
            if (child == 0) for (;;) memset(malloc(8 * MIB), 1, 8 * MIB);
            if (child > 0) while (kill(child, 0) == 0) usleep(1000);
        }
    }
    if (!strcmp(kind, "forks")) for (;;) fork();
    if (!strcmp(kind, "writes")) for (;;) fill("/written", 256 * MIB, 0);
    if (!strcmp(kind, "fsync")) for (;;) fill("/forced", 16 * MIB, 1);
    if (!strcmp(kind, "log")) for (;;) if (write(1, block, sizeof block) < 0) return 1;
    if (!strcmp(kind, "cache")) { fill("/cached", 512 * MIB, 0); for (;;) read_all(); }
    if (!strcmp(kind, "files")) for (;;) files();
    if (!strcmp(kind, "network")) flood();
    fprintf(stderr, "no harm is called %s\n", kind);
    return 2;
}

int main(int argc, char **argv) {
    memset(block, 'x', sizeof block);
    for (size_t at = 79; at < sizeof block; at += 80) block[at] = '\n';
    if (argc == 4 && !strcmp(argv[1], "work")) return work(argv[2], atof(argv[3]));
    if (argc == 3 && !strcmp(argv[1], "harm")) return harm(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "wait")) for (;;) pause();
    fprintf(stderr, "usage: neighbour work KIND SECONDS | harm KIND | wait\n");
    return 2;
}
