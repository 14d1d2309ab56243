/* The fuzzer's inputs without the fuzzer: files, and strings from a random number generator.
 *
 *     replay [--runs N] [--seed S] [--first I] [--bytes N] [--dump FILE] [FILE...]
 *
 * Run i of seed S is the same string everywhere. A divergence names the run; --first I --runs 1 repeats it, and --dump
 * writes its string to a file.
 */
#include <stdio.h>
#include <string.h>

#include "native.h"

static uint64_t state;

/* splitmix64 */
static uint64_t draw(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void replay_file(const char *path)
{
    static uint8_t data[1 << 16];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    native_subject = path;
    LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
    uint64_t runs = 0, seed = 1, first = 0;
    size_t bytes = 300, files = 0;
    const char *dump = NULL;
    uint8_t data[4096];
    char name[64];
    for (int i = 1; i < argc; i++) {
        int more = i + 1 < argc;
        if (more && !strcmp(argv[i], "--runs"))
            runs = strtoull(argv[++i], NULL, 10);
        else if (more && !strcmp(argv[i], "--seed"))
            seed = strtoull(argv[++i], NULL, 10);
        else if (more && !strcmp(argv[i], "--first"))
            first = strtoull(argv[++i], NULL, 10);
        else if (more && !strcmp(argv[i], "--bytes"))
            bytes = strtoull(argv[++i], NULL, 10);
        else if (more && !strcmp(argv[i], "--dump"))
            dump = argv[++i];
        else {
            replay_file(argv[i]);
            files++;
        }
    }
    if (bytes > sizeof data)
        bytes = sizeof data;
    for (uint64_t run = first; run < first + runs; run++) {
        snprintf(name, sizeof name, "run %llu of seed %llu", (unsigned long long)run, (unsigned long long)seed);
        native_subject = name;
        state = seed * UINT64_C(0x2545f4914f6cdd1d) + run;
        size_t size = 8 + draw() % (bytes > 8 ? bytes - 7 : 1);
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)draw();
        if (dump) {
            FILE *file = fopen(dump, "wb");
            if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file)) {
                perror(dump);
                return 2;
            }
        }
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%zu inputs (%zu files, %llu of seed %llu): %zu operations, %zu arms, %zu fires, %zu refusals, "
           "%zu failed allocations, %zu yields, 0 divergences\n",
           totals.inputs, files, (unsigned long long)runs, (unsigned long long)seed, totals.operations, totals.arms,
           totals.fires, totals.refusals, totals.failures, totals.yields);
    return 0;
}
