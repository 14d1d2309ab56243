from libc.stdint cimport int64_t

cdef extern from "tuning.h" nogil:
    enum:
        PIECE "TH_PIECE"                # an enum: dimensions of arrays
    const size_t CELLS_AHEAD "TH_CELLS_AHEAD"
    const size_t SIFTED_SINGLY "TH_SIFTED_SINGLY"
    const size_t INSERTION_MAX "TH_INSERTION_MAX"
    const size_t PREFETCH "TH_PREFETCH"
    const size_t TAKE_SLICE "TH_TAKE_SLICE"
    const size_t SCAN_SLICE "TH_SCAN_SLICE"
    const size_t FEW "TH_FEW"
    const size_t CACHED_KEYS "TH_CACHED_KEYS"
    const size_t WALK_ROOM "TH_WALK_ROOM"
    enum:
        LANES "TH_LANES"
    const size_t RUN_KEPT "TH_RUN_KEPT"
    const size_t JUST_ARMED "TH_JUST_ARMED"
    const size_t STOPS_A_SLICE "TH_STOPS_A_SLICE"
    const size_t SWEEP_SLICE "TH_SWEEP_SLICE"
    const size_t TH_RISERS
    const int64_t WATCH_EVERY "TH_WATCH"
    const size_t KEYS_MAX "TH_KEYS_MAX"
