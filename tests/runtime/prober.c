/* Makes system calls by every instruction set that the processor runs, and says what each answered:
 * one JSON object a line, {"abi":"x86_64","call":"unshare","errno":1}; 0 for success.
 *
 * Built twice: for x86-64 (which also makes i386 calls by int 0x80 and x32 calls) and for i386.
 * With the argument "user" it says its effective user id instead.
 *
 * Arguments of calls are such that a call that is let through either succeeds harmlessly or fails with another
 * errno than a filter's. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#define ABI "x86_64"
#else
#define ABI "i386"
#endif

static void say(const char *abi, const char *call, long result)
{
    printf("{\"abi\":\"%s\",\"call\":\"%s\",\"errno\":%ld}\n", abi, call, result < 0 ? -result : 0);
    fflush(stdout);
}

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}

#define PROBE(name, number, a, b, c, d, e, f) \
    say(ABI, name, call6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

/* A child that is born ends at once; the parent waits for it. */
static long clone_with(unsigned long flags)
{
    long result = call6(SYS_clone, (long)(flags | SIGCHLD), 0, 0, 0, 0, 0);
    if (result == 0)
        _exit(0);
    if (result > 0)
        waitpid((pid_t)result, NULL, 0);
    return result;
}

#ifdef __x86_64__
static long int80(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

static void other_abis(void)
{
    /* Numbers of i386 (asm/unistd_32.h). */
    say("int80", "getpid", int80(20, 0, 0, 0));
    say("int80", "unshare", int80(310, CLONE_NEWUTS, 0, 0));
    say("int80", "setns", int80(346, -1, 0, 0));
    say("int80", "mount", int80(21, 0, 0, 0));
    say("int80", "keyctl", int80(288, 0, -3, 0));
    say("int80", "bpf", int80(357, -1, 0, 0));
    say("int80", "clone3", int80(435, 0, 0, 0));
    say("int80", "io_uring_setup", int80(425, 0, 0, 0));
    say("int80", "socket_alg", int80(359, 38, 5, 0));
    say("int80", "socket_vsock", int80(359, 40, 1, 0));
    say("int80", "socket_unix", int80(359, 1, 1, 0));
    /* socketcall's arguments lie in memory below 4 GiB, which there is none of here: a filter that
     * looks at the number answers before the kernel looks at the pointer. */
    say("int80", "socketcall_socket", int80(102, 1, 0, 0));
    /* x32 is x86-64 with bit 30. */
    say("x32", "getpid", call6(0x40000000 | 39, 0, 0, 0, 0, 0, 0));
    say("x32", "unshare", call6(0x40000000 | 272, CLONE_NEWUTS, 0, 0, 0, 0, 0));
    say("x32", "execve", call6(0x40000000 | 520, 0, 0, 0, 0, 0, 0));
    /* Upper halves that the kernel cuts off must not hide a family from the filter. */
    say(ABI, "socket_alg_high", call6(SYS_socket, 0x100000026L, 5, 0, 0, 0, 0));
}
#else
static void other_abis(void)
{
    long alg[3] = {38, 5, 0}, unix_pair[4] = {1, 1, 0, 0};
    PROBE("socketcall_socket", SYS_socketcall, 1, alg, 0, 0, 0, 0);
    PROBE("socketcall_socketpair", SYS_socketcall, 8, unix_pair, 0, 0, 0, 0);
    /* Listening on no socket: allowed, and so EBADF. */
    long bad[2] = {-1, 1};
    PROBE("socketcall_listen", SYS_socketcall, 4, bad, 0, 0, 0, 0);
}
#endif

int main(int count, char **arguments)
{
    char parameters[120];
    if (count > 1 && strcmp(arguments[1], "user") == 0) {
        printf("%d\n", (int)geteuid());
        return 0;
    }
    memset(parameters, 0, sizeof parameters);
    PROBE("getpid", SYS_getpid, 0, 0, 0, 0, 0, 0);
    say(ABI, "clone_plain", clone_with(0));
    say(ABI, "clone_newuser", clone_with(CLONE_NEWUSER));
    say(ABI, "clone_newnet", clone_with(CLONE_NEWNET));
    PROBE("clone3", SYS_clone3, 0, 0, 0, 0, 0, 0);
    PROBE("unshare", SYS_unshare, CLONE_NEWUTS, 0, 0, 0, 0, 0);
    PROBE("setns", SYS_setns, -1, 0, 0, 0, 0, 0);
    PROBE("mount", SYS_mount, 0, 0, 0, 0, 0, 0);
    PROBE("umount2", SYS_umount2, 0, 0, 0, 0, 0, 0);
    PROBE("pivot_root", SYS_pivot_root, 0, 0, 0, 0, 0, 0);
    PROBE("open_tree", SYS_open_tree, -1, "x", 0, 0, 0, 0);
    PROBE("move_mount", SYS_move_mount, -1, "x", -1, "x", 0, 0);
    PROBE("fsopen", SYS_fsopen, 0, 0, 0, 0, 0, 0);
    PROBE("fsconfig", SYS_fsconfig, -1, 0, 0, 0, 0, 0);
    PROBE("fsmount", SYS_fsmount, -1, 0, 0, 0, 0, 0);
    PROBE("mount_setattr", SYS_mount_setattr, -1, "", 0, 0, 0, 0);
    PROBE("keyctl", SYS_keyctl, 0, -3, 0, 0, 0, 0);
    PROBE("add_key", SYS_add_key, 0, 0, 0, 0, 0, 0);
    PROBE("request_key", SYS_request_key, 0, 0, 0, 0, 0, 0);
    PROBE("bpf", SYS_bpf, -1, 0, 0, 0, 0, 0);
    PROBE("io_uring_setup", SYS_io_uring_setup, 1, parameters, 0, 0, 0, 0);
    PROBE("io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0, 0);
    PROBE("io_uring_register", SYS_io_uring_register, -1, 0, 0, 0, 0, 0);
    PROBE("userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0, 0);
    PROBE("perf_event_open", SYS_perf_event_open, 0, 0, 0, 0, 0, 0);
    PROBE("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0, 0, 0, 0);
    PROBE("reboot", SYS_reboot, 0, 0, 0, 0, 0, 0);
    PROBE("swapon", SYS_swapon, 0, 0, 0, 0, 0, 0);
    PROBE("sethostname", SYS_sethostname, 0, -1, 0, 0, 0, 0);
    PROBE("settimeofday", SYS_settimeofday, 0, 0, 0, 0, 0, 0);
    PROBE("syslog", SYS_syslog, 10, 0, 0, 0, 0, 0);
    PROBE("pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0, 0, 0, 0);
    PROBE("fanotify_init", SYS_fanotify_init, 0, 0, 0, 0, 0, 0);
    PROBE("personality_no_random", SYS_personality, 0x40000, 0, 0, 0, 0, 0);
    PROBE("socket_alg", SYS_socket, 38, 5, 0, 0, 0, 0);
    PROBE("socket_vsock", SYS_socket, 40, 1, 0, 0, 0, 0);
    PROBE("socket_unix", SYS_socket, 1, 1, 0, 0, 0, 0);
    PROBE("socket_inet", SYS_socket, 2, 1, 0, 0, 0, 0);
    PROBE("newer_than_known", 900, 0, 0, 0, 0, 0, 0);
    other_abis();
    return 0;
}
