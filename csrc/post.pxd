from libc.stdint cimport int64_t, uint32_t

from core cimport th_core

cdef extern from "post.h" nogil:
    ctypedef struct th_post:
        th_core* core
        void* heap
        void* thread
        uint32_t turn
        bint standby
        th_core* lost
    ctypedef unsigned long (*th_starter)(void (*)(void*) noexcept nogil, void*) noexcept nogil
    th_post* th_my_post
    int th_stranded
    th_post* th_post_new(th_core* c)
    void th_post_hold(th_post* post)
    void th_post_drop(th_post* post)
    size_t th_posts_of(th_core* c, th_post** posts, size_t room)
    bint th_post_ended(th_post* post)
    unsigned long th_post_tid(th_post* post)
    unsigned long th_post_ident(th_post* post)
    void th_post_disappear(th_post* post)
    bint th_post_disappeared(th_post* post)
    bint th_post_mine(const th_post* post)
    void th_post_note_closing(th_post* post, int by)
    bint th_post_await(th_post* post, bint closing, int64_t deadline)
    void th_post_await_system(th_post* post, int64_t seen)
    bint th_post_start(th_post* post, th_starter start, void (*run)(void*))
    void th_post_to_park(th_post* post)
    void th_post_to_call(th_post* post)
    bint th_post_leave(th_post* post)
    void th_post_take(th_post* post)
    void th_post_return(th_post* post)
    void th_post_over(th_post* post)
    int th_watch_threads()
