// Answers the process's calls for randomness and for the time of day: by a seed and with one and the same time where
// GUREUM_SIMULATION_SEED is set, and else as the system does. The symbols stand before those of the C library, so that
// every crate which asks it gets these.

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

// One stream for each thread, so that what helps from aside does not disturb the simulation's own thread.
static __thread int state_is_set;
static __thread uint64_t state;

// When every simulation begins: in September 2026.
static const time_t begin_s = 1790000000;

// SplitMix64.
static uint64_t next(void) {
    uint64_t mixed = (state += 0x9e3779b97f4a7c15u);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

ssize_t getrandom(void *buffer, size_t bytes, unsigned int flags) {
    if (!state_is_set) {
        const char *seed = getenv("GUREUM_SIMULATION_SEED");
        if (seed == NULL) {
            return syscall(SYS_getrandom, buffer, bytes, flags);
        }
        state = strtoull(seed, NULL, 10);
        state_is_set = 1;
    }
    unsigned char *to = buffer;
    for (size_t done = 0; done < bytes; done += 8) {
        uint64_t random = next();
        for (size_t i = 0; i < 8 && done + i < bytes; i++) {
            to[done + i] = (unsigned char)(random >> (8 * i));
        }
    }
    return (ssize_t)bytes;
}

int getentropy(void *buffer, size_t bytes) {
    if (bytes > 256) {
        errno = EIO;
        return -1;
    }
    return getrandom(buffer, bytes, 0) < 0 ? -1 : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock != CLOCK_REALTIME || getenv("GUREUM_SIMULATION_SEED") == NULL) {
        return (int)syscall(SYS_clock_gettime, clock, time);
    }
    time->tv_sec = begin_s;
    time->tv_nsec = 0;
    return 0;
}
