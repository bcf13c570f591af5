/* One program for all that the conformance suite asks of an engine: probe VERB ARGUMENT... */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char LINE[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int copy(const char *source, const char *target) {
    char buffer[4096];
    size_t length;
    FILE *in = fopen(source, "r");
    if (!in) return fail(source);
    FILE *out = fopen(target, "w");
    if (!out) return fail(target);
    while ((length = fread(buffer, 1, sizeof buffer, in)) > 0)
        if (fwrite(buffer, 1, length, out) != length) return fail(target);
    return fclose(out) ? fail(target) : 0;
}

static int hold(const char *path) {
    if (open(path, O_WRONLY) < 0) return fail(path);
    for (;;) sleep(3600);
}

static int spin(const char *path) {
    if (open(path, O_WRONLY) < 0) return fail(path);
    for (volatile uint64_t turns = 0;; turns++) {
    }
}

/* What differs from run to run unless the engine is deterministic. */
static int chance(void) {
    unsigned char random[16];
    struct timespec now, ticks;
    volatile double zero = 0;
    double nan = zero / zero;
    uint64_t bits;
    if (getentropy(random, sizeof random)) return fail("getentropy");
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_MONOTONIC, &ticks);
    memcpy(&bits, &nan, sizeof bits);
    for (size_t i = 0; i < sizeof random; i++) printf("%02x", random[i]);
    printf(" %lld.%09ld %lld.%09ld %016llx\n", now.tv_sec, now.tv_nsec, ticks.tv_sec, ticks.tv_nsec,
           (unsigned long long)bits);
    return 0;
}

/* Sleeps and says how long it took by its own clocks, in milliseconds. */
static int doze(unsigned seconds) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (sleep(seconds)) return fail("sleep");
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000);
    return 0;
}

static int eat(size_t megabytes) {
    for (size_t i = 0; i < megabytes; i++) {
        volatile char *block = malloc(1 << 20);
        if (!block) {
            printf("%zu\n", i);
            return 3;
        }
        for (size_t page = 0; page < 1 << 20; page += 4096) block[page] = 1;
    }
    printf("%zu\n", megabytes);
    return 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "exit")) return atoi(argv[2]);
    if (!strcmp(verb, "say")) {
        fputs(argv[2], stdout);
        fputs(argv[3], stderr);
        return 0;
    }
    if (!strcmp(verb, "flood")) {
        for (long i = 0, lines = atol(argv[2]); i < lines; i++) {
            fputs(LINE, stdout);
            if (i % 2) fputs(LINE, stderr);
        }
        return 0;
    }
    if (!strcmp(verb, "copy")) return copy(argv[2], argv[3]);
    if (!strcmp(verb, "write")) {
        FILE *out = fopen(argv[2], "w");
        if (!out || fputs(argv[3], out) < 0 || fclose(out)) return fail(argv[2]);
        return 0;
    }
    if (!strcmp(verb, "variable")) {
        const char *value = getenv(argv[2]);
        if (value) fputs(value, stdout);
        return 0;
    }
    if (!strcmp(verb, "arguments")) {
        for (int i = 2; i < argc; i++) puts(argv[i]);
        return 0;
    }
    if (!strcmp(verb, "hold")) return hold(argv[2]);
    if (!strcmp(verb, "spin")) return spin(argv[2]);
    if (!strcmp(verb, "chance")) return chance();
    if (!strcmp(verb, "doze")) return doze((unsigned)atoi(argv[2]));
    if (!strcmp(verb, "eat")) return eat(strtoul(argv[2], NULL, 10));
    if (!strcmp(verb, "link")) return symlink(argv[2], argv[3]) ? fail("symlink") : 0;
    if (!strcmp(verb, "trap")) __builtin_trap();
    fprintf(stderr, "no such verb: %s\n", verb);
    return 64;
}
