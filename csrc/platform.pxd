from libc.stdint cimport int64_t, uint32_t

cdef extern from "platform.h" nogil:
    const bint PORTABLE_BUILD "TH_PORTABLE"
    const int64_t SIGNALS_EVERY "TH_SIGNALS_EVERY"
    const int64_t TH_NEVER
    const int64_t NS_PER_S "TH_NS_PER_S"
    int EINTR
    int64_t th_monotonic()
    int th_await_word(const uint32_t* word, uint32_t value, int64_t deadline)
    int th_sleep_until(int64_t deadline)
    void th_pause(int64_t ns)
    void th_populate(void* base, size_t size)
    const bint HAS_EPOLL "TH_EPOLL"
    struct th_epoll_data "epoll_data":
        int fd
    struct epoll_event:
        uint32_t events
        th_epoll_data data
    const uint32_t EPOLLIN
    const uint32_t EPOLLOUT
    int th_epoll_wait(int fd, epoll_event* events, int most, int64_t ns)
