/* started REPORT PROGRAM [ARGUMENT...]
 * Starts a program and writes what it took into the file REPORT: "WALL_NS CPU_US PEAK_KIB STATUS".
 *
 * In C because it must be small: Linux counts the memory of the process that called exec into the
 * ru_maxrss of the program (fs/exec.c, exec_mmap), so a program started by an interpreter never
 * seems smaller than the interpreter.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long microseconds(struct timeval time)
{
    return time.tv_sec * 1000000LL + time.tv_usec;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    pid_t child;
    int status;

    if (argc < 3)
        return 2;
    long long start = nanoseconds();
    if (posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ) != 0) {
        fprintf(stderr, "cannot start %s\n", argv[2]);
        return 127;
    }
    if (wait4(child, &status, 0, &usage) != child)
        return 2;
    long long wall = nanoseconds() - start;
    FILE *report = fopen(argv[1], "w");
    if (report == NULL)
        return 2;
    fprintf(report, "%lld %lld %ld %d\n", wall,
            microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss,
            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return fclose(report) == 0 ? 0 : 2;
}
