/* Included before the C of the core in a build for coverage: tells shim.c, if it is loaded, what writes the counts. */
#ifndef TH_COVERAGE_HOOK_H
#define TH_COVERAGE_HOOK_H

void __gcov_dump(void);
void th_coverage_before_end(void (*dump)(void)) __attribute__((weak));

static void __attribute__((constructor, no_profile_instrument_function)) th_coverage_hook(void)
{
    if (th_coverage_before_end)
        th_coverage_before_end(__gcov_dump);
}

#endif
